"""Choosing the operating point at run time: the most accurate one that keeps a latency budget under changing load."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 30
"""Frames that the present point is judged by."""

_TOO_SLOW = 2
"""Frames of the window past the target from which its p95 is past it, too: one of 30 is not, two are."""

_RECENT = 5
"""Frames that say how far to go down: a few late ones among others that were not cost one point, not all of them."""

_AIM = 0.92
"""A point is changed for one that is expected to take up to this share of the target ..."""

_AIM_UP = 0.85
"""... or to this one where it is a dearer one: what lies between the two keeps the present point."""

_NEVER_IDLE = 0.95
"""Share of the time from image to image from which the worker counts as never idle: no two frames take the same."""

_LEAST_FRAMES_UP = 10
_HOLD_S, _LONGEST_HOLD_S = 2.0, 60.0
"""How long a point runs before a dearer one may be tried; doubled each time that this has to be taken back."""

_REGRET_S = 15.0
"""A dearer point that is left within this time was a mistake; one that lasts twice as long was none."""


@dataclass(frozen=True)
class LatencyTarget:
    """What to keep: milliseconds from an image's receipt to its mask, and masks per second of each stream; 0: none."""

    latency_ms: float = 0.0
    fps: float = 0.0

    def __post_init__(self) -> None:
        for name in ('latency_ms', 'fps'):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f'target {name}: expected a number >= 0, got {value!r}')

    def __bool__(self) -> bool:
        return self.latency_ms > 0 or self.fps > 0

    def __str__(self) -> str:
        parts = [f'{self.latency_ms:g} ms'] if self.latency_ms > 0 else []
        return ' and '.join([*parts, f'{self.fps:g} FPS'] if self.fps > 0 else parts)

    def pressure(self, total_ms: float, work_ms: float, streams: int) -> float:
        """Return what a frame took as a share of what it may: above 1 the target is missed.

        `total_ms` is the frame's latency, `work_ms` what it kept the worker busy, which serves `streams` cameras.
        """
        latency = total_ms / self.latency_ms if self.latency_ms > 0 else 0.0
        return max(latency, work_ms * max(1, streams) * self.fps / 1e3)


@dataclass(frozen=True)
class FrameCost:
    """One frame, or the frames of a batch, of which the latest counts.

    Its latency `total_ms`; the `work_ms` per frame that the worker needed for it, of which the network ran for
    `inference_ms`; and `drawing_ms` per frame that it was busy with pictures after the mask.

    The worker serves `streams` cameras, whose images are `period_ms` apart each; 0: not known.
    """

    total_ms: float
    work_ms: float
    inference_ms: float
    streams: int = 1
    period_ms: float = 0.0
    drawing_ms: float = 0.0


class BudgetController:
    """Walks along operating points, cheapest first and least accurate, dearest last and most accurate.

    `costs` are the milliseconds of the network at each point, measured in one run: what matters is their ratio, from
    which it predicts what a frame would take at another point under the load of the moment. It goes down as soon as
    the p95 of the last frames is past the target: by one point, and as far as it must where frames go on being late.
    It goes up when the p95 of a full look leaves room for the dearer point, and waits longer each time that this turns
    out wrong: so it does not hunt.

    A frame's latency is work and waiting. Work follows the cost of the point; waiting jumps by up to a period where the
    worker becomes too slow for the cameras: it is then never idle, and the newest image has waited for anything between
    nothing and the time to the next one.

    Times are those of a monotonic clock, in seconds. Not thread-safe.
    """

    def __init__(self, costs: Sequence[float], target: LatencyTarget, now_s: float, index: int) -> None:
        if not costs or min(costs) <= 0:
            raise ValueError(f'expected the cost of at least one point, above 0 each, got {list(costs)}')
        self._costs = tuple(map(float, costs))
        self._target = target
        self._index = range(len(costs))[index]
        self._frames: deque[FrameCost] = deque(maxlen=WINDOW)
        self._since_s = now_s
        self._hold_s = _HOLD_S
        self._went_up = False
        self.reason = 'first choice, by the time of its network alone'

    @property
    def index(self) -> int:
        """The point to run."""
        return self._index

    @property
    def pressure(self) -> float:
        """The p95 of the present point's last frames; 0 before the first."""
        return _p95([self._pressure(frame) for frame in self._frames]) if self._frames else 0.0

    @property
    def is_missed(self) -> bool:
        """Whether the target is missed and there is no cheaper point."""
        return self._index == 0 and len(self._slow_frames()) >= _TOO_SLOW

    def add(self, frame: FrameCost, now_s: float) -> bool:
        """Note a frame that ran at the present point; return whether another one is to run from now on."""
        self._frames.append(frame)
        if self._went_up and now_s - self._since_s > 2 * _REGRET_S:
            self._hold_s, self._went_up = _HOLD_S, False
        if len(self._slow_frames()) >= _TOO_SLOW:
            return self._index > 0 and self._go_down(now_s)
        return self._index + 1 < len(self._costs) and self._go_up(now_s)

    def _go_down(self, now_s: float) -> bool:
        work_ms = _median([frame.work_ms for frame in self._frames][-_RECENT:])
        target = self._dearest(work_ms, _AIM, range(self._index))
        if self._went_up and now_s - self._since_s < _REGRET_S:
            self._hold_s = min(2 * self._hold_s, _LONGEST_HOLD_S)
        self._went_up = False
        self._change(target, now_s, f'p95 was {100 * self.pressure:.0f} % of the target')
        return True

    def _go_up(self, now_s: float) -> bool:
        if len(self._frames) < _LEAST_FRAMES_UP or now_s - self._since_s < self._hold_s:
            return False
        work_ms = _p95([frame.work_ms for frame in self._frames])
        target = self._dearest(work_ms, _AIM_UP, range(self._index, len(self._costs)))
        if target <= self._index:
            return False
        self._went_up = True
        self._change(target, now_s, f'p95 was {100 * self.pressure:.0f} % of the target: there is room')
        return True

    def _dearest(self, work_ms: float, aim: float, candidates: range) -> int:
        """Return the dearest candidate that takes up to `aim` of the target, where work takes `work_ms` now.

        The first candidate if none does.
        """
        fits = [index for index in candidates if self._predict(index, work_ms) <= aim]
        return fits[-1] if fits else candidates[0]

    def _predict(self, index: int, work_ms: float) -> float:
        """Return the pressure of a frame at a point, where the work of one takes `work_ms` at the present point."""
        inference = _median([frame.inference_ms for frame in self._frames])
        work = max(_median([frame.work_ms for frame in self._frames]), inference, 1e-9)
        ratio = (work - inference + inference * self._costs[index] / self._costs[self._index]) / work
        last = self._frames[-1]
        drawing = _median([frame.drawing_ms for frame in self._frames])
        if last.period_ms > 0 and (work * ratio + drawing) * last.streams > _NEVER_IDLE * last.period_ms:
            wait_ms = last.period_ms
        elif last.period_ms > 0 and (work + drawing) * last.streams > _NEVER_IDLE * last.period_ms:
            wait_ms = (last.streams - 1) * (work_ms * ratio + drawing)  # for the other cameras
        else:
            wait_ms = _p95([frame.total_ms - frame.work_ms for frame in self._frames]) * ratio
        return self._target.pressure(work_ms * ratio + max(wait_ms, 0.0), work_ms * ratio + drawing, last.streams)

    def _pressure(self, frame: FrameCost) -> float:
        return self._target.pressure(frame.total_ms, frame.work_ms + frame.drawing_ms, frame.streams)

    def _slow_frames(self) -> list[FrameCost]:
        return [frame for frame in self._frames if self._pressure(frame) > 1]

    def _change(self, index: int, now_s: float, reason: str) -> None:
        self._index, self._since_s, self.reason = index, now_s, reason
        self._frames.clear()


def _p95(values: Sequence[float]) -> float:
    return float(np.percentile(values, 95))


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def first_point(costs: Sequence[float], target: LatencyTarget, streams: int) -> int:
    """Return the dearest point whose network alone takes no more than 70 % of the target; else the cheapest, 0."""
    fits = [index for index, cost in enumerate(costs) if target.pressure(cost, cost, streams) <= 0.7]
    return fits[-1] if fits else 0
