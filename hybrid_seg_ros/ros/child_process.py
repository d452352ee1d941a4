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
_HELD = (signal.SIGINT, signal.SIGTERM)


class ChildProcess:
    """Runs a command; a context manager that ends it: by SIGINT, and by SIGKILL where that does not help.

    `shows_progress` leaves its stderr, where progress bars go, on the terminal. For the main thread only.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], shows_progress: bool = False
    ) -> None:
        self._command, self.log, self._environment = list(command), log, dict(environment)
        self._shows_progress = shows_progress

    def __enter__(self) -> ChildProcess:
        # A signal that raises inside Popen would leave a child that nobody knows: take it once the child is known.
        held: list[int] = []
        before = {number: signal.signal(number, lambda number, _: held.append(number)) for number in _HELD}
        try:
            self._process = self._start()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        try:
            for number in held:
                signal.raise_signal(number)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

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

    def _start(self) -> subprocess.Popen:
        with self.log.open('wb') as stream:
            # a session of its own: Ctrl-C at the terminal reaches only us, and we end the child in order
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=None if self._shows_progress else subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
