"""Which batch norms keep their mean and variance in training."""

from __future__ import annotations

from torch import nn

from hybrid_seg_ros.training.imagenet_trunk import trunks_of


def keep_statistics(model: nn.Module) -> None:
    """Put batch norms in evaluation mode: those of EfficientNet-Lite0, which are ImageNet's, and those that are frozen.

    Batches are too small for better ones, and a frozen part must not change. To be called after `model.train()`.
    """
    for trunk in trunks_of(model):
        trunk.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
