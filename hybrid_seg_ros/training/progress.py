"""How far a run is: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_STEPS, LINE_SECONDS = 100, 30.0
"""Without a terminal there is a line after so many steps or seconds, whichever comes first."""


class Progress:
    """Shows steps done of `total`; `done` of them were done before."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._first = total, done
        self._started_s = self._shown_s = time.monotonic()
        self._shown_step = done
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, desc='train', unit='step', dynamic_ncols=True)

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Show that `done` steps are done, with the loss of the last."""
        shown = {name: value for name, value in values.items() if name != 'learning_rate'}
        if self._bar is not None:
            self._bar.set_postfix({name: f'{value:.3f}' for name, value in shown.items()}, refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        is_first = done == self._first + 1
        if is_first or done == self._total or done - self._shown_step >= LINE_STEPS or (
            now - self._shown_s >= LINE_SECONDS
        ):
            self._shown_step, self._shown_s = done, now
            per_step = (now - self._started_s) / (done - self._first)
            losses = ', '.join(f'{name} {value:.4f}' for name, value in shown.items())
            left = duration((self._total - done) * per_step)
            log.info('step %d of %d: %s; %.2f s a step, %s left', done, self._total, losses, per_step, left)

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """Write a time as `3 h 05 min`, `12 min` or `40 s`."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    hours, minutes = divmod(round(seconds / 60), 60)
    return f'{hours} h {minutes:02d} min' if hours else f'{minutes} min'
