"""Settings of the node's process: threads, signals."""

from __future__ import annotations

import os
import signal
import threading


def wait_passively() -> None:
    """Let OpenMP's threads sleep, not spin, while they wait for one another. Call it before PyTorch is loaded.

    On cores that others use, too, spinning takes the time away from the thread that is waited for: with both of two
    cores busy elsewhere, a frame took 3.5 times as long. OMP_WAIT_POLICY in the environment has precedence.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


def stop_event() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set. A second signal ends the process at once.

    rclpy's own handlers would shut its context down under the running callbacks and the worker thread.
    """
    event = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        event.set()
        for number in (signal.SIGINT, signal.SIGTERM):  # launch sends one after the other
            signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return event
