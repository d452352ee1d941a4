"""How this process keeps its memory."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MIB = 1 << 20


def keep_freed_memory() -> bool:
    """Make malloc reuse freed memory instead of mapping it anew each time; return whether it does.

    Without it every frame costs the kernel thousands of page faults, for image messages and for the tensors of a
    convolution: EfficientNet-Lite0 takes 1.8 times as long. A node calls it before rclpy.init. Only glibc has it.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)) and bool(mallopt(_M_TRIM_THRESHOLD, 256 * _MIB))


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
