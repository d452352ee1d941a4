"""The same function with fewer passes over memory: batch norms folded into their neighbours, padding into kernels."""

from __future__ import annotations

import torch
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
    """Fold each batch norm right behind a convolution, or before a linear layer, into it, in place; returns the model.

    For inference: the model must be in evaluation mode, and can no longer be trained or saved under the same names.
    Raises ValueError if it is in training mode, or if a batch norm is left, whose neighbour was not found.
    """
    if model.training:
        raise ValueError('expected a model in evaluation mode')
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (name, module), (next_name, behind) in zip(children, children[1:]):
            if isinstance(module, nn.Conv2d) and isinstance(behind, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(module, behind))
                setattr(parent, next_name, nn.Identity())
            elif isinstance(module, nn.BatchNorm1d) and isinstance(behind, nn.Linear):
                setattr(parent, next_name, _fold_into_linear(module, behind))
                setattr(parent, name, nn.Identity())
    left = [name for name, module in model.named_modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    if left:
        raise ValueError(f'no convolution stands before, no linear layer behind {", ".join(left)}')
    return model


def _fold_into_linear(norm: nn.BatchNorm1d, linear: nn.Linear) -> nn.Linear:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    bias = linear.weight @ shift if linear.bias is None else linear.bias + linear.weight @ shift
    folded = nn.Linear(linear.in_features, linear.out_features)
    folded.weight = nn.Parameter((linear.weight * scale).detach(), requires_grad=False)
    folded.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return folded
