"""Ctrl-C and SIGTERM: the running step is finished and saved; a second one stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTICE = b'\nfinishing the running step and saving; once more to stop at once\n'


class Interruption:
    """While entered, the first signal sets `requested`, a later one raises KeyboardInterrupt.

    `same_request_s`: signals that come this soon after the first mean the same. torchrun passes on the Ctrl-C that its
    processes have had from the terminal already. Outside the main thread nothing is installed.
    """

    def __init__(self, same_request_s: float = 0.0, notify: bool = True) -> None:
        self.requested = False
        self._same_request_s, self._notify = same_request_s, notify
        self._first_s = 0.0
        self._nothing_to_finish = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> 'Interruption':
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Run a part that is not worth finishing, such as an evaluation: the first signal raises already."""
        if self.requested:
            raise KeyboardInterrupt
        self._nothing_to_finish = True
        try:
            yield
        finally:
            self._nothing_to_finish = False

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        now = time.monotonic()
        if self._nothing_to_finish or (self.requested and now - self._first_s >= self._same_request_s):
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._first_s = True, now
            if self._notify:
                os.write(2, _NOTICE)  # print is not safe in a signal handler
