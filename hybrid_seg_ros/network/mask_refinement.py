"""Mask refinement: class masks from the patch grid to stride 4, with the trunk's early features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.network.efficientnet_lite import STRIDE_4_CHANNELS, STRIDE_8_CHANNELS, TrunkFeatures

CHANNELS = 48


class SeparableResidual(nn.Module):
    """Depthwise and pointwise convolution, batch norm behind each, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, C, H, W)."""
        change = self.norm2(self.pointwise(F.relu(self.norm1(self.depthwise(features)))))
        return F.relu(features + change)


class MaskRefinement(nn.Module):
    """Corrects upsampled mask logits where the image has detail that a patch of 16 pixels cannot hold.

    The trunk has computed the features anyway. Starts as plain bilinear upsampling: the last layer is zero. It runs
    once, behind the last head, and treats tokens that were merged or left early like all others.
    """

    def __init__(self, num_classes: int, channels: int = CHANNELS, num_blocks: int = 3) -> None:
        super().__init__()
        self.stride_4 = nn.Conv2d(STRIDE_4_CHANNELS, channels, 1)
        self.stride_8 = nn.Conv2d(STRIDE_8_CHANNELS, channels, 1)
        self.scores = nn.Conv2d(num_classes, channels, 1)
        self.blocks = nn.Sequential(*(SeparableResidual(channels) for _ in range(num_blocks)))
        self.output = nn.Conv2d(channels, num_classes, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, mask_logits: Tensor, scores: Tensor, trunk: TrunkFeatures) -> Tensor:
        """Refine mask logits (B, classes, gh, gw) -> (B, classes, H/4, W/4); `scores` are their class scores."""
        size_hw = tuple(int(side) for side in trunk.stride_4.shape[2:])

        def upsample(features: Tensor) -> Tensor:
            return F.interpolate(features, size=size_hw, mode='bilinear', align_corners=False)

        features = self.stride_4(trunk.stride_4) + upsample(self.stride_8(trunk.stride_8))
        features = F.relu(features + upsample(self.scores(scores.to(features.dtype))))
        return upsample(mask_logits).float() + self.output(self.blocks(features)).float()
