"""What this process takes of the machine, memory and threads, and what its processor computes with."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from pathlib import Path
from typing import Optional

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MIB = 1 << 20
_BFLOAT16_FLAGS = {'avx512_bf16', 'amx_bf16'}


def keep_freed_memory() -> bool:
    """Make malloc reuse freed memory instead of mapping it anew each time; return whether it does.

    Without it every frame costs the kernel thousands of page faults, for image messages and for the tensors of a
    convolution: EfficientNet-Lite0 takes 1.8 times as long. A node calls it before rclpy.init. Only glibc has it.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)) and bool(mallopt(_M_TRIM_THRESHOLD, 256 * _MIB))


def processor_has_bfloat16() -> bool:
    """Tell whether the processor has instructions for bfloat16, AVX-512 BF16 or AMX."""
    try:
        return not _BFLOAT16_FLAGS.isdisjoint(Path('/proc/cpuinfo').read_text(encoding='utf-8').split())
    except OSError:
        return False


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error of whichever library means that memory of the machine or the GPU ran out."""
    return isinstance(error, MemoryError) or any(
        words in str(error).lower() for words in ('out of memory', "can't allocate memory", 'bad allocation')
    )


def free_unused_memory() -> None:
    """Give back what nobody uses, on the GPU, too."""
    gc.collect()
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def wait_briefly() -> None:
    """Let OpenMP's threads spin for about a tenth of a millisecond, then sleep, while they wait for one another.

    Call it before PyTorch is loaded. To sleep at once costs hybrid@6+8 108 instead of 78 ms on two idle cores; to spin
    for long, as is the default, 420 instead of 220 on two that others use, too (to sleep at once 338): spinning takes
    the time away from the thread that is waited for. OMP_WAIT_POLICY in the environment has precedence.
    """
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'  # for other libraries than GNU's
        os.environ.setdefault('GOMP_SPINCOUNT', '10000')


def limit_threads(threads: Optional[int]) -> None:
    """Let numerical libraries use so many threads; None leaves one per core. Raises ValueError for less than 1.

    Libraries that are loaded later, and child processes, read it in the environment; those that are there are told.
    Call it again once a model is open.
    """
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f'--threads: expected at least 1, got {threads}')
    os.environ['OMP_NUM_THREADS'] = str(threads)
    torch = sys.modules.get('torch')
    if torch is not None:
        torch.set_num_threads(threads)
