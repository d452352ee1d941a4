"""A child process with its output in a log file, which does not outlive the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Optional

_GRACE_S = 5.0


class ChildProcess:
    """Runs a command; a context manager that ends it: by SIGINT, and by SIGKILL where that does not help."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], shows_progress: bool = False
    ) -> None:
        """Start the command; `shows_progress` leaves its stderr, where progress bars go, on the terminal."""
        self.log = log
        with log.open('wb') as stream:
            # a session of its own: Ctrl-C at the terminal reaches only us, and we end the child in order
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=None if shows_progress else subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    @property
    def exit_status(self) -> Optional[int]:
        """Exit status; negative for a signal; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End the process and whatever it started."""
        if self.exit_status is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of its output."""
        return '\n'.join(self.log.read_text(encoding='utf-8', errors='replace').splitlines()[-lines:])
