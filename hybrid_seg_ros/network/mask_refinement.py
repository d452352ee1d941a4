"""Mask refinement: class masks from the patch grid to stride 4, with a few convolutions on the image itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 48
STEM_CHANNELS = 24


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
        change = self.norm2(self.pointwise(F.relu(self.norm1(self.depthwise(features)), inplace=True)))
        return F.relu(change.add_(features), inplace=True)


class MaskRefinement(nn.Module):
    """Corrects upsampled mask logits where the image has detail that a patch of 16 pixels cannot hold.

    Starts as plain bilinear upsampling: the last layer is zero. It runs once, behind the last head, and treats tokens
    that were merged or left early like all others.
    """

    def __init__(self, num_classes: int, channels: int = CHANNELS, num_blocks: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.conv2 = nn.Conv2d(STEM_CHANNELS, channels, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.scores = nn.Conv2d(num_classes, channels, 1)
        self.blocks = nn.Sequential(*(SeparableResidual(channels) for _ in range(num_blocks)))
        self.output = nn.Conv2d(channels, num_classes, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def detail(self, image: Tensor) -> Tensor:
        """Return what the image (B, 3, H, W) shows at stride 4: (B, channels, H/4, W/4)."""
        return self.norm2(self.conv2(F.relu(self.norm1(self.conv1(image)), inplace=True)))

    def forward(self, mask_logits: Tensor, scores: Tensor, detail: Tensor) -> Tensor:
        """Refine mask logits (B, classes, gh, gw) -> (B, classes, H/4, W/4); `scores` are their class scores."""
        size_hw = tuple(int(side) for side in detail.shape[2:])

        def upsample(features: Tensor) -> Tensor:
            return F.interpolate(features, size=size_hw, mode='bilinear', align_corners=False)

        features = F.relu(upsample(self.scores(scores.to(detail.dtype))).add_(detail), inplace=True)
        return upsample(mask_logits).float() + self.output(self.blocks(features)).float()
