"""Runs a `hybrid_seg` command as its user does, as a process of its own, and looks at it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
HYBRID_SEG = ('-m', 'hybrid_seg_ros.cli')


@contextmanager
def command_process(*arguments: object, program: Sequence[str] = HYBRID_SEG) -> Iterator[subprocess.Popen]:
    """Start a command of a program that Python runs; its process is killed at the end, if it still runs."""
    process = subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def children_of(process: subprocess.Popen) -> dict[int, str]:
    """Return the command lines of a process's children, by process id."""
    listed = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    return {int(pid): Path(f'/proc/{pid}/cmdline').read_text().replace('\0', ' ') for pid in listed}


def wait_for_children(process: subprocess.Popen) -> dict[int, str]:
    """Wait until a process has children, and return them."""
    deadline = time.monotonic() + 10.0
    while not (children := children_of(process)):
        assert time.monotonic() < deadline, 'no child was started'
        time.sleep(0.02)
    return children


def wait_for_line(process: subprocess.Popen, text: str) -> str:
    """Read the process's output up to a line that contains `text`, and return that."""
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f'{text!r} never came: {process.stderr.read()}')


def wait_until_gone(pids) -> None:
    deadline = time.monotonic() + 10.0
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, 'children outlived the command'
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False
