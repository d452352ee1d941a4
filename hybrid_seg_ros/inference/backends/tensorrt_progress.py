"""What a user sees of an engine being built, which takes minutes on a robot."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Optional

from hybrid_seg_ros.inference.backends.tensorrt_library import TensorRt

log = logging.getLogger(__name__)

EVERY_S = 5.0


class BuildProgress:
    """Logs the start, the end, and where TensorRT tells it (10 and newer) every few seconds how far it has come."""

    def __init__(self, library: TensorRt, config: Any, name: str) -> None:
        self._name = name
        self._start = self._last = time.monotonic()
        self._open: dict[str, tuple[int, int]] = {}
        if hasattr(library.module, 'IProgressMonitor') and hasattr(config, 'progress_monitor'):
            self._monitor = _make_monitor(library.module, self)  # TensorRT does not keep it alive
            config.progress_monitor = self._monitor

    def __enter__(self) -> 'BuildProgress':
        log.info('building an engine of %s; this takes seconds to minutes, once', self._name)
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], where: Optional[TracebackType]
    ) -> None:  # fmt: skip
        if error is None:
            log.info('engine of %s ready after %.0f s', self._name, time.monotonic() - self._start)

    def enter(self, phase: str, steps: int) -> None:
        """Note that a phase of the build begins."""
        self._open[phase] = (0, steps)

    def step(self, phase: str, step: int) -> None:
        """Note that a step of a phase is done."""
        self._open[phase] = (step + 1, self._open.get(phase, (0, step + 1))[1])
        now = time.monotonic()
        if now - self._last >= EVERY_S:
            self._last = now
            phases = ', '.join(f'{name.lower()} {done}/{steps}' for name, (done, steps) in list(self._open.items()))
            log.info('building an engine of %s, %.0f s: %s', self._name, now - self._start, phases)

    def leave(self, phase: str) -> None:
        """Note that a phase is over."""
        self._open.pop(phase, None)


def _make_monitor(module: Any, progress: BuildProgress) -> Any:
    class Monitor(module.IProgressMonitor):
        """Passes on what TensorRT tells, from whichever thread."""

        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: Optional[str], steps: int) -> None:
            progress.enter(phase, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            progress.step(phase, step)
            return True  # go on

        def phase_finish(self, phase: str) -> None:
            progress.leave(phase)

    return Monitor()
