"""Policy networks: a score for each 2x2 window of patches, high where the window shows a single class (CTS, 3.1).

All of them give logits (B, 2, h, w), "do not share" and "share", one pair per window of 32x32 pixels, and are called
with the image, the features of a shared trunk and the embedded patches, of which each takes what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.efficientnet_lite import (
    FINAL_CHANNELS,
    STRIDE_16_CHANNELS,
    STRIDE_16_STAGE,
    EfficientNetLite0,
    TrunkFeatures,
)
from hybrid_seg_ros.network.token_counts import WINDOW

HIDDEN = 64


class PolicyNetwork(nn.Module):
    """EfficientNet-Lite0 and a 1x1 convolution, as in CTS (section 3.1).

    With `continues_trunk` it has only the stages behind stride 16, and goes on from the features of a shared trunk.
    """

    def __init__(self, convention: str = 'tensorflow', continues_trunk: bool = False) -> None:
        super().__init__()
        self.needs_trunk = continues_trunk
        self.backbone = EfficientNetLite0(convention, first_stage=STRIDE_16_STAGE if continues_trunk else 0)
        self.head = nn.Conv2d(FINAL_CHANNELS, 2, 1)

    def forward(
        self, image: Tensor, trunk: Optional[TrunkFeatures] = None, patches: Optional[Tensor] = None
    ) -> Tensor:
        """Map the image (B, 3, H, W), or a shared trunk's features, to logits (B, 2, ceil(H/32), ceil(W/32))."""
        return self.head(self.backbone(trunk.stride_16 if self.needs_trunk else image))


class TrunkPolicy(nn.Module):
    """A small head on the features of the trunk that the stem uses as well: stride 16, and 32 where it goes so far."""

    needs_trunk = True

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(STRIDE_16_CHANNELS, HIDDEN, 1)
        # 4x4: the window's 2x2 cells and the ring around them
        self.window = nn.Conv2d(HIDDEN, HIDDEN, 4, stride=WINDOW, padding=1, groups=HIDDEN)
        self.deep = nn.Conv2d(FINAL_CHANNELS, HIDDEN, 1) if deep else None
        self.mix = nn.Conv2d(HIDDEN, HIDDEN, 1)
        self.head = nn.Conv2d(HIDDEN, 2, 1)

    def forward(
        self, image: Tensor, trunk: Optional[TrunkFeatures] = None, patches: Optional[Tensor] = None
    ) -> Tensor:
        """Map the trunk's features to logits (B, 2, H // 32, W // 32)."""
        features = self.window(F.relu(self.reduce(trunk.stride_16)))  # (B, 64, gh // 2, gw // 2)
        if self.deep is not None:
            features = features + self.deep(trunk.stride_32)[:, :, : features.shape[2], : features.shape[3]]
        return self.head(F.relu(self.mix(F.relu(features))))


class HalfSizePolicy(nn.Module):
    """EfficientNet-Lite0 up to stride 16, of its own, on the image at half its size."""

    needs_trunk = False

    def __init__(self, convention: str = 'tensorflow') -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(convention, last_stage=STRIDE_16_STAGE)
        self.head = nn.Conv2d(STRIDE_16_CHANNELS, 2, 1)

    def forward(
        self, image: Tensor, trunk: Optional[TrunkFeatures] = None, patches: Optional[Tensor] = None
    ) -> Tensor:
        """Map the image (B, 3, H, W) to logits (B, 2, ceil(H/32), ceil(W/32))."""
        return self.head(self.backbone(F.avg_pool2d(image, 2)))


class DepthwisePolicy(nn.Module):
    """Five depthwise separable convolutions on the image at half its size; starts from random numbers."""

    needs_trunk = False
    channels = (16, 32, 64, 96, 96)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_conv_norm(3, self.channels[0], 3, 2), nn.ReLU6()]
        for index, (inputs, outputs) in enumerate(zip(self.channels, self.channels[1:])):
            stride = 2 if index < 3 else 1
            layers += [*_conv_norm(inputs, inputs, 3, stride, groups=inputs), nn.ReLU6()]
            layers += [*_conv_norm(inputs, outputs, 1), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(self.channels[-1], 2, 1)

    def forward(
        self, image: Tensor, trunk: Optional[TrunkFeatures] = None, patches: Optional[Tensor] = None
    ) -> Tensor:
        """Map the image (B, 3, H, W) to logits (B, 2, ceil(H/32), ceil(W/32))."""
        return self.head(self.features(F.avg_pool2d(image, 2)))


class PatchPolicy(nn.Module):
    """A two-layer perceptron on the four embedded patches of a window."""

    needs_trunk = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.window = nn.Conv2d(width, HIDDEN, WINDOW, stride=WINDOW)
        self.head = nn.Conv2d(HIDDEN, 2, 1)

    def forward(
        self, image: Tensor, trunk: Optional[TrunkFeatures] = None, patches: Optional[Tensor] = None
    ) -> Tensor:
        """Map the patch embedding (B, C, gh, gw), before stem and position are added, to (B, 2, gh // 2, gw // 2)."""
        return self.head(F.gelu(self.window(patches)))


_KINDS: dict[str, Callable[[ModelSpec], nn.Module]] = {
    'efficientnet_lite0': lambda spec: PolicyNetwork(spec.trunk_convention, spec.has_trunk),
    'shared_trunk': lambda spec: TrunkPolicy(deep=spec.stem == 'deep_trunk'),
    'half_size': lambda spec: HalfSizePolicy(spec.trunk_convention),
    'depthwise': lambda spec: DepthwisePolicy(),
    'patch_mlp': lambda spec: PatchPolicy(spec.backbone.embed_dim),
}


def create_policy(spec: ModelSpec) -> Optional[nn.Module]:
    """Build the policy network of a spec; None where it has none."""
    return None if spec.policy == 'none' else _KINDS[spec.policy](spec)


def window_scores(logits: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Return one score per whole window: (B, 2, h, w) -> (B, gh // 2, gw // 2).

    The difference of the two logits orders windows as softmax does, but does not saturate into ties.
    """
    difference = (logits[:, 1] - logits[:, 0]).float()
    return difference[:, : grid_hw[0] // WINDOW, : grid_hw[1] // WINDOW]


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs)
