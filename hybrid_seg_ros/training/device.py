"""The device to train on, and what it computes with."""

from __future__ import annotations

import contextlib
import os

import torch
from torch import nn

_AUTOCAST_DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


def training_device(name: str, precision: str) -> torch.device:
    """Return the device of this process: `cpu`, `cuda:N`, or `cuda`, of which torchrun's processes take one each.

    Raises ValueError for a device or precision that cannot be had.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'unknown device {name!r}; legal are cpu, cuda, cuda:N') from error
    if device.type == 'cpu':
        if precision == 'float16':
            raise ValueError('precision float16 needs --device cuda; legal on the CPU are float32, bfloat16')
        return device
    if device.type != 'cuda':
        raise ValueError(f'unknown device {name!r}; legal are cpu, cuda, cuda:N')
    if not torch.cuda.is_available():
        raise ValueError(f'device {name!r}: this PyTorch ({torch.__version__}) sees no CUDA device')
    if device.index is not None and int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise ValueError(f'device {name!r}: several processes take one GPU each; expected --device cuda')
    index = int(os.environ.get('LOCAL_RANK', 0)) if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise ValueError(f'device cuda:{index}: expected an index below {torch.cuda.device_count()}')
    return torch.device('cuda', index)


def prepare_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to the device; on CUDA, convolutions are faster with channels last, float32 products with TF32."""
    if device.type == 'cuda':
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision('high')
        torch.backends.cudnn.allow_tf32 = True
        model = model.to(memory_format=torch.channels_last)
    return model.to(device)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return the context in which the network computes with `precision`; weights and losses stay float32."""
    if precision == 'float32':
        return contextlib.nullcontext()
    return torch.autocast(device.type, _AUTOCAST_DTYPES[precision])
