"""Starts demos as their users do, and looks after the processes that they start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0


def start_command(*arguments: object) -> subprocess.Popen:
    """Start `hybrid_seg ARGUMENTS`, with its output as text in pipes."""
    return subprocess.Popen(
        [sys.executable, '-m', 'hybrid_seg_ros.cli', *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def children_of(process: subprocess.Popen) -> dict[int, str]:
    """Return the command lines of a process's children, by process id."""
    listed = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    return {int(pid): Path(f'/proc/{pid}/cmdline').read_text().replace('\0', ' ') for pid in listed}


def wait_for_line(process: subprocess.Popen, text: str) -> None:
    """Read the process's output up to a line with `text`."""
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f'{text!r} never came: {process.stderr.read()}')


def wait_until_gone(pids: Iterable[int]) -> None:
    """Wait until none of the processes runs."""
    deadline = time.monotonic() + 10.0
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, 'children outlived their parent'
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Say whether there is such a process, and it has not ended."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False
