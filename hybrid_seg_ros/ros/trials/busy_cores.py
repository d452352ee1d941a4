"""BusyCores: processes that do nothing but use up the processor, while a context lasts."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Optional

from hybrid_seg_ros.ros.child_process import ChildProcess

# ends by itself when its parent does, however that came about
_PROGRAM = 'import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(100000):\n        pass'


class BusyCores:
    """Runs `count` processes, each busy on a core; a context manager that ends them."""

    def __init__(self, count: int, log_folder: Path) -> None:
        if count < 0:
            raise ValueError(f'busy: expected at least 0 processes, got {count}')
        command = [sys.executable, '-I', '-S', '-c', _PROGRAM, str(os.getpid())]
        self._processes = [
            ChildProcess(command, log_folder / f'busy_{index}.log', os.environ) for index in range(count)
        ]

    def __enter__(self) -> BusyCores:
        with ExitStack() as started:
            for process in self._processes:
                started.enter_context(process)
            self._started = started.pop_all()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._started.__exit__(kind, error, traceback)
