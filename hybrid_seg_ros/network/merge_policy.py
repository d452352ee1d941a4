"""Policy network: a score for each 2x2 window of patches, high where the window shows a single class (CTS, 3.1)."""

from __future__ import annotations

from typing import Optional

from torch import Tensor, nn

from hybrid_seg_ros.network.efficientnet_lite import FINAL_CHANNELS, STRIDE_16_STAGE, EfficientNetLite0


class PolicyNetwork(nn.Module):
    """EfficientNet-Lite0 and a 1x1 convolution to two channels, "do not share" and "share", per 32x32 pixels."""

    window = 2

    def __init__(self, convention: str = 'tensorflow') -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(convention)
        self.head = nn.Conv2d(FINAL_CHANNELS, 2, 1)

    def stride_16(self, image: Tensor) -> Tensor:
        """Return the features that a shared stem uses: (B, 3, H, W) -> (B, 112, ceil(H/16), ceil(W/16))."""
        return self.backbone.run(image, last_stage=STRIDE_16_STAGE)

    def forward(self, image: Tensor, stride_16: Optional[Tensor] = None) -> Tensor:
        """Return logits (B, 2, ceil(H/32), ceil(W/32)); `stride_16` saves computing those features again."""
        if stride_16 is None:
            stride_16 = self.stride_16(image)
        return self.head(self.backbone.run(stride_16, first_stage=STRIDE_16_STAGE))

    @classmethod
    def scores(cls, logits: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return one score per whole window: (B, 2, h, w) -> (B, gh // 2, gw // 2).

        The difference of the two logits orders windows as softmax does, but does not saturate into ties.
        """
        difference = (logits[:, 1] - logits[:, 0]).float()
        return difference[:, : grid_hw[0] // cls.window, : grid_hw[1] // cls.window]
