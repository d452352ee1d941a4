"""The program segmentation_node: a signal ends it in order from here on, also while libraries are being loaded."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Optional


def main(args: Optional[Sequence[str]] = None, load: Optional[Callable[..., Any]] = None) -> int:
    """Run the node until SIGINT or SIGTERM; return 0, or 1 if it could not be made or had to give up.

    `load` makes the pipeline of a NodeConfig; by default model_loading.load_configured does.
    """
    stop = stop_event()
    from hybrid_seg_ros.ros.process import run

    return 0 if stop.is_set() else run(args, load, stop)


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


if __name__ == '__main__':
    sys.exit(main())
