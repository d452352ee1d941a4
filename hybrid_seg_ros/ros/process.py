"""Settings of the node's process: memory, threads, signals."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MIB = 1 << 20


def keep_freed_memory() -> bool:
    """Make malloc reuse the memory of image messages instead of mapping it anew for each; return whether it does.

    Without it every frame costs the kernel thousands of page faults. Call it before rclpy.init. Only glibc has it.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)) and bool(mallopt(_M_TRIM_THRESHOLD, 256 * _MIB))


def wait_passively() -> None:
    """Let OpenMP's threads sleep, not spin, while they wait for one another. Call it before PyTorch is loaded.

    On cores that others use, too, spinning takes the time away from the thread that is waited for: with both of two
    cores busy elsewhere, a frame took 3.5 times as long. OMP_WAIT_POLICY in the environment has precedence.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


def limit_threads(count: int) -> None:
    """Let numerical libraries use `count` threads; 0 leaves them alone. Call it before and after they are loaded."""
    if count == 0:
        return
    os.environ['OMP_NUM_THREADS'] = str(count)
    torch = sys.modules.get('torch')  # the backend imports it, if it needs it
    if torch is not None:
        torch.set_num_threads(count)


def stop_event() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set. A second signal ends the process at once.

    rclpy's own handlers would shut its context down under the running callbacks and the worker thread.
    """
    event = threading.Event()

    def stop(number: int, _frame: object) -> None:
        event.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return event
