"""Which parts of a model stay in evaluation mode while the rest is trained."""

from __future__ import annotations

from torch import nn

from hybrid_seg_ros.training.imagenet_trunk import trunks_of


def keep_evaluation_mode(model: nn.Module) -> None:
    """Put in evaluation mode what shall not change or be noisy; to be called after `model.train()`.

    That is EfficientNet-Lite0, whose batch norms keep ImageNet's mean and variance, as batches are too small for better
    ones; and each part whose parameters are all frozen: its batch norms, dropout and stochastic depth.
    """
    for trunk in trunks_of(model):
        trunk.eval()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
