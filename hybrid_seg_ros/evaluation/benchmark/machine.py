"""What a measurement ran on, for people to read."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Optional

BUSY = 0.25
"""Processes per core that want to run, above which a machine is not idle."""


def describe_cpu(threads: Optional[int] = None) -> str:
    """Return the processor's name and the number of cores that this process may use.

    With `threads`, the number of those that compute, also how they wait for one another.
    """
    described = f'{cpu_name()}, {usable_cores()} cores'
    if threads is None:
        return described
    waiting = ', '.join(f'{name}: {os.environ.get(name, "not set")}' for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'))
    return f'{described}, threads: {threads}, {waiting}'


def cpu_name() -> str:
    """Return the processor's name, or on a board without one (a Jetson) that of the board."""
    try:
        match = re.search(r'^model name\s*:\s*(.+)$', Path('/proc/cpuinfo').read_text(encoding='utf-8'), re.MULTILINE)
    except OSError:
        match = None
    board = Path('/proc/device-tree/model')
    if match is None and board.is_file():
        return board.read_text(encoding='utf-8').strip('\0\n ')
    return match[1].strip() if match else platform.machine()


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def busy_remark(load: float) -> str:
    """Say what a high load average before a measurement means for its numbers; nothing where it is low."""
    if load <= BUSY * usable_cores():
        return ''
    return (f'the machine is busy (load average {load:.1f} on {usable_cores()} cores): medians of different runs will '
            'not compare')  # fmt: skip
