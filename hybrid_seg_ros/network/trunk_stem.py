"""Stem: brings the features of a convolutional trunk into the tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.network.efficientnet_lite import FINAL_CHANNELS, STRIDE_16_CHANNELS, TrunkFeatures


class TrunkStem(nn.Module):
    """Projects the trunk's stride-16 features, and with `deep` those of stride 32, to the encoder's width."""

    def __init__(self, width: int, deep: bool) -> None:
        super().__init__()
        self.stride_16 = nn.Conv2d(STRIDE_16_CHANNELS, width, 1)
        self.stride_32 = nn.Conv2d(FINAL_CHANNELS, width, 1) if deep else None

    def forward(self, trunk: TrunkFeatures) -> Tensor:
        """Return what is added to the patch embedding, (B, cells, C), for cells of 16 pixels."""
        features = self.stride_16(trunk.stride_16)
        if self.stride_32 is not None:
            deep = self.stride_32(trunk.stride_32)
            features = features + F.interpolate(deep, size=features.shape[2:], mode='bilinear', align_corners=False)
        return features.flatten(2).transpose(1, 2)  # (B, cells, C)
