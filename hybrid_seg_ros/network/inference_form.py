"""The same function with fewer passes over memory: batch norms folded into convolutions, padding into kernels."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hybrid_seg_ros.network.efficientnet_lite import ConvSame


def prepare_for_inference(model: nn.Module) -> nn.Module:
    """Fold batch norms, and padding where it costs a copy, in place; returns the model, for inference only.

    Raises ValueError as `fold_batch_norms`.
    """
    fold_batch_norms(model)
    for module in model.modules():
        if isinstance(module, ConvSame):
            module.widen()
    return model


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Fold each batch norm that stands right behind a convolution into it, in place; returns the model.

    For inference: the model must be in evaluation mode, and can no longer be trained or saved under the same names.
    Raises ValueError if it is in training mode, or if a batch norm is left, whose convolution was not found.
    """
    if model.training:
        raise ValueError('expected a model in evaluation mode')
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (convolution_name, convolution), (norm_name, norm) in zip(children, children[1:]):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, convolution_name, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, norm_name, nn.Identity())
    left = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if left:
        raise ValueError(f'no convolution stands before {", ".join(left)}')
    return model
