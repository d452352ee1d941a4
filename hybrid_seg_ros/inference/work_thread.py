"""WorkThread: runs functions one after the other on a thread of its own, which never keeps the process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Optional


class WorkThread:
    """Like a ThreadPoolExecutor of one thread, which however joins its thread at exit, even one that is stuck."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Optional[tuple[Future, Callable[[], Any]]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any]) -> Future:
        """Run `job()` after what was submitted before; its result, or what it raises, is that of the future."""
        future: Future = Future()
        self._jobs.put((future, job))
        return future

    def close(self, timeout_s: Optional[float] = None) -> bool:
        """End the thread after what was submitted; return whether it has ended within `timeout_s`."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            entry = self._jobs.get()
            if entry is None:
                return
            future, job = entry
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)
            del entry, future, job  # or the last frame and result would live on while nothing comes
