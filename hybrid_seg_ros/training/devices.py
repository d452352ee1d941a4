"""Where a run computes: the device and its precision, and the processes that torchrun starts to train one model.

Each process computes gradients of its own batches, DistributedDataParallel averages them, and all take the same step.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hybrid_seg_ros.process_memory import processor_has_bfloat16

TIMEOUT = datetime.timedelta(hours=6)
"""How long the others wait while the first process evaluates. torchrun ends them at once if it dies."""

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


def training_precision(name: str, device: torch.device) -> str:
    """Return the precision of a configuration; `auto` is bfloat16 on a GPU and on processors that have it."""
    if name != 'auto':
        return name
    return 'bfloat16' if device.type == 'cuda' or processor_has_bfloat16() else 'float32'


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


class ProcessFailedError(RuntimeError):
    """Another process of the run failed; its own message says why."""


@dataclass(frozen=True)
class Processes:
    """This process, `rank` 0 to `count` - 1, among those of the run; the first one writes and reports."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def batch_numbers(self, step: int, accumulate: int) -> list[int]:
        """Return the numbers of this process' batches in a step; those of all processes follow each other."""
        return [(step * accumulate + micro) * self.count + self.rank for micro in range(accumulate)]

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module whose backward pass averages the gradients over all processes."""
        if self.count == 1:
            return module
        # Which parameters a step uses depends on its variant. Buffers, statistics of batch norms, are the first's own.
        buffers = {'forward_sync_buffers': False}
        if 'forward_sync_buffers' not in inspect.signature(DistributedDataParallel).parameters:  # PyTorch before 2.13
            buffers = {'broadcast_buffers': False}
        return DistributedDataParallel(module, find_unused_parameters=True, **buffers)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Run a part that can fail in one process alone: if it does, all raise, so that none waits for it."""
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        any_failed = self.any(failure is not None)
        if failure is not None:
            raise failure
        if any_failed:
            raise ProcessFailedError('another process of the run failed; its own message says why')

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def mean(self, values: Sequence[float]) -> list[float]:
        """Average each value over the processes."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return (total / self.count).tolist()


@contextlib.contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started (they find each other by its environment variables), and leave them."""
    if int(os.environ.get('WORLD_SIZE', 1)) == 1:
        yield Processes()
        return
    # numbers travel by gloo, gradients by the backend of their device
    dist.init_process_group('gloo' if device.type == 'cpu' else 'cpu:gloo,cuda:nccl', timeout=TIMEOUT)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
