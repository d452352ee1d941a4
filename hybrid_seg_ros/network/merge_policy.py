"""Policy networks: a score for each window of patches, high where the window shows a single class (CTS, 3.1; STEP).

All of them give logits (B, 2, h, w), "do not share" and "share", per window size, and are called with the image and
with what embeds its patches, for one that looks at these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.efficientnet_lite import (
    FINAL_CHANNELS,
    NUM_STAGES,
    STRIDE_16_CHANNELS,
    STRIDE_16_STAGE,
    EfficientNetLite0,
)

HIDDEN = 64
PIXEL_CENTRE = 127.5

Embed = Callable[[Tensor], Tensor]
"""Embeds the patches of an image: (B, 3, H, W) -> (B, C, gh, gw)."""

PolicyLogits = Mapping[int, Tensor]
"""Per window size w the logits (B, 2, gh // w, gw // w), or a row or column more where the grid is no multiple."""


class PolicyNetwork(nn.Module):
    """EfficientNet-Lite0 and a 1x1 convolution, as in CTS (section 3.1).

    With `half_size` it sees the image at half its size, and is cut at stride 16: a fifth of the multiplications.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.half_size = half_size = spec.policy == 'half_size'
        last_stage = STRIDE_16_STAGE if half_size else NUM_STAGES
        self.backbone = EfficientNetLite0(spec.trunk_convention, last_stage=last_stage)
        # weights made with TensorFlow expect pixels from -1 to 1
        self.rescales = spec.trunk_convention == 'tensorflow' and {*spec.mean, *spec.std} != {PIXEL_CENTRE}
        if self.rescales:
            mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
            self.register_buffer('scale', std / PIXEL_CENTRE, persistent=False)
            self.register_buffer('shift', mean / PIXEL_CENTRE - 1, persistent=False)
        channels = STRIDE_16_CHANNELS if half_size else FINAL_CHANNELS
        self.head = nn.Conv2d(channels, 2, 1)
        self.larger = _larger_heads(channels, spec.window_sizes)

    def forward(self, image: Tensor, embed: Embed) -> PolicyLogits:
        """Map the image (B, 3, H, W), normalised as the spec says, to logits; patches are not looked at."""
        image = F.avg_pool2d(image, 2) if self.half_size else image
        image = image * self.scale + self.shift if self.rescales else image
        features = self.backbone(image)  # (B, C, H / 32, W / 32)
        return _per_size(features, self.head, self.larger)


class PatchPolicy(nn.Module):
    """A two-layer perceptron on the four embedded patches of a window."""

    def __init__(self, width: int, window_sizes: Iterable[int]) -> None:
        super().__init__()
        self.window = nn.Conv2d(width, HIDDEN, 2, stride=2)
        self.head = nn.Conv2d(HIDDEN, 2, 1)
        self.larger = _larger_heads(HIDDEN, window_sizes)

    def forward(self, image: Tensor, embed: Embed) -> PolicyLogits:
        """Map the image's patch embedding (B, C, gh, gw), before position is added, to logits."""
        return _per_size(F.gelu(self.window(embed(image).detach())), self.head, self.larger)


def create_policy(spec: ModelSpec) -> Optional[nn.Module]:
    """Build the policy network of a spec; None where it has none."""
    if spec.policy == 'none':
        return None
    if spec.policy == 'patch_mlp':
        return PatchPolicy(spec.backbone.embed_dim, spec.window_sizes)
    return PolicyNetwork(spec)


def window_scores(logits: PolicyLogits, grid_hw: tuple[int, int]) -> dict[int, Tensor]:
    """Return one score per whole window and size w: (B, gh // w, gw // w).

    The difference of the two logits orders windows as softmax does, but does not saturate into ties.
    """
    return {
        window: (pair[:, 1] - pair[:, 0]).float()[:, : grid_hw[0] // window, : grid_hw[1] // window]
        for window, pair in logits.items()
    }


def scores_on_host(logits: PolicyLogits, grid_hw: tuple[int, int]) -> dict[int, np.ndarray]:
    """Return `window_scores` as what `choose_windows` takes."""
    return {window: scores.detach().cpu().numpy() for window, scores in window_scores(logits, grid_hw).items()}


def _larger_heads(channels: int, window_sizes: Iterable[int]) -> nn.ModuleDict:
    """One convolution per window size above 2, over the 2x2 windows that it consists of."""
    sizes = sorted(window for window in window_sizes if window > 2)
    return nn.ModuleDict({str(w): nn.Conv2d(channels, 2, w // 2, stride=w // 2) for w in sizes})


def _per_size(features: Tensor, head: nn.Module, larger: nn.ModuleDict) -> dict[int, Tensor]:
    logits = {2: head(features)}
    for name, convolution in larger.items():
        # a grid smaller than the window has none of that size: what it gives beyond the grid is cut off by who reads it
        missing = [max(0, int(name) // 2 - int(side)) for side in features.shape[2:]]
        logits[int(name)] = convolution(F.pad(features, (0, missing[1], 0, missing[0])) if any(missing) else features)
    return logits
