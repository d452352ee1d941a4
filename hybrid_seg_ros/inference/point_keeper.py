"""PointKeeper: the operating point that runs is the one that is asked for, or the one that keeps a latency budget."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Optional

import numpy as np

from hybrid_seg_ros.inference.latency_budget import BudgetController, FrameCost, LatencyTarget, first_point
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.inference.points_table import OperatingPoint, name_point
from hybrid_seg_ros.inference.work_thread import WorkThread
from hybrid_seg_ros.model_spec import TokenBudget, Variant

log = logging.getLogger(__name__)

_TIMING_ROUNDS = 5


@dataclass(frozen=True)
class Wanted:
    """What is asked for: a fixed operating point, or, where there is a target, whichever point keeps it."""

    variant: Variant
    budget: TokenBudget
    target: LatencyTarget = LatencyTarget()


@dataclass(frozen=True)
class PointState:
    """What runs and why, for people to read.

    `target`, `pressure` (the p95 of the last frames as a share of the target), `miou` and `gflops` of the table and
    `changes` belong to a latency budget. `preparing` names what is exported or built beside it, `problem` says what
    cannot be run although it was asked for.
    """

    point: str
    reason: str = ''
    target: str = ''
    pressure: float = 0.0
    is_missed: bool = False
    miou: Optional[float] = None
    gflops: Optional[float] = None
    position: str = ''
    changes: int = 0
    preparing: str = ''
    problem: str = ''


class PointKeeper:
    """Sets a pipeline's operating point between images.

    A point whose graphs or engines are still to be made is made on another thread, and the present one goes on until it
    is ready, or for good if it cannot be. All methods but `state` are called from the pipeline's thread.
    """

    def __init__(self, pipeline: SegmentationPipeline, points: Sequence[OperatingPoint] = (), batch: int = 1) -> None:
        """`points` are the table that a budget chooses from, cheapest first; `batch` images come at once."""
        self._pipeline, self._points, self._batch = pipeline, tuple(points), batch
        self._wanted: Optional[Wanted] = None
        self._controller: Optional[BudgetController] = None
        self._costs: tuple[float, ...] = ()
        self._timings: list[float] = []  # ms of the points in turn, round after round
        self._preparation: Optional[Future] = None
        self._asked: Optional[Wanted] = None  # what was asked for last and has been seen to
        self._prepared: Optional[Wanted] = None  # what the preparation is for
        self._thread: Optional[WorkThread] = None
        self._state = PointState(name_point(*pipeline.operating_point))

    @property
    def state(self) -> PointState:
        """What runs and why; may be read from any thread."""
        return self._state

    def start(self, wanted: Wanted, streams: int, now_s: float) -> None:
        """Make what `wanted` needs, and run it. Raises what the backend raises, ValueError for a missing table."""
        self._prepare(wanted)
        while wanted.target and not self._costs:
            self._time_a_point()
        self._switch(wanted, streams, now_s)

    def follow(self, wanted: Wanted, streams: int, now_s: float) -> None:
        """Run what is wanted from the next image on, if it is ready; else begin to make it ready."""
        if self._preparation is not None and self._preparation.done():
            if self._is_to_be_timed(wanted):
                self._time_a_point()  # one between two images, so that these go on
                return
            self._end_preparation(wanted, streams, now_s)
        if wanted == self._wanted and wanted != self._asked:
            self._asked = wanted  # back to what runs
            self._state = dataclasses.replace(self._state, problem='')
        if wanted == self._asked:
            return
        if self._is_ready(wanted):
            self._asked = wanted
            self._try(lambda: self._switch(wanted, streams, now_s))
        elif self._preparation is None:  # one at a time; what was asked for last is next
            self._thread = self._thread or WorkThread('preparation')
            self._asked = self._prepared = wanted
            self._preparation = self._thread.submit(lambda: self._prepare(wanted))
            self._state = dataclasses.replace(self._state, preparing=_describe(wanted), problem='')
            log.info('preparing %s; %s goes on meanwhile', _describe(wanted), self._state.point)

    def observe(self, frame: FrameCost, now_s: float) -> None:
        """Note what an image took that ran at the present point."""
        controller, wanted = self._controller, self._wanted
        if controller is None or wanted is None:
            return
        if controller.add(frame, now_s):
            self._run_chosen(controller, wanted, self._state.changes + 1)
        else:
            self._state = dataclasses.replace(
                self._state, pressure=controller.pressure, is_missed=controller.is_missed, reason=controller.reason
            )

    def close(self, timeout_s: float) -> bool:
        """End the other thread; return whether it has ended within `timeout_s`."""
        return self._thread is None or self._thread.close(timeout_s)

    def _is_ready(self, wanted: Wanted) -> bool:
        if wanted.target:
            return bool(self._costs) and all(self._pipeline.is_ready(p.variant, p.budget) for p in self._points)
        return self._pipeline.is_ready(wanted.variant, wanted.budget)

    def _prepare(self, wanted: Wanted) -> None:
        """Export, build and load; on whichever thread."""
        per_point = 2 if self._batch > 1 else 1  # for one image, and for a batch
        if not wanted.target:
            # the one that runs, the one before it and the next: what runs must not go while another one is made
            self._pipeline.keep_open(3 * per_point)
            self._pipeline.warm_up(wanted.variant, wanted.budget, self._batch)
            return
        if not self._points:
            raise ValueError(f'a target of {wanted.target} needs a table of operating points, and there is none')
        self._pipeline.keep_open((len(self._points) + 2) * per_point)
        for point in self._points:
            self._pipeline.warm_up(point.variant, point.budget, self._batch)

    def _end_preparation(self, wanted: Wanted, streams: int, now_s: float) -> None:
        preparation, self._preparation = self._preparation, None
        self._state = dataclasses.replace(self._state, preparing='')

        def switch() -> None:
            preparation.result()
            self._switch(wanted, streams, now_s)

        if wanted == self._prepared == self._asked:  # else something else was asked for meanwhile
            self._try(switch)

    def _try(self, switch: Callable[[], None]) -> None:
        """Switch, or stay and say why."""
        try:
            switch()
        except Exception as error:  # whatever a backend raises: the present point still runs
            problem = f'cannot run {_describe(self._asked)}: {error}'
            self._state = dataclasses.replace(self._state, problem=problem)
            log.error('%s; %s goes on', problem, self._state.point)

    def _switch(self, wanted: Wanted, streams: int, now_s: float) -> None:
        if not wanted.target:
            self._pipeline.set_operating_point(wanted.variant, wanted.budget)
            self._controller = None
            name = name_point(wanted.variant, wanted.budget)
            self._state = PointState(name, 'as set, without a latency budget', preparing=self._state.preparing)
        else:
            before = self._controller
            index = first_point(self._costs, wanted.target, streams) if before is None else before.index
            self._controller = BudgetController(self._costs, wanted.target, now_s, index)
            self._run_chosen(self._controller, wanted, changes=0)
        self._wanted = self._asked = wanted

    def _is_to_be_timed(self, wanted: Wanted) -> bool:
        prepared = self._preparation is not None and self._preparation.exception() is None
        return prepared and wanted == self._prepared == self._asked and bool(wanted.target) and not self._costs

    def _time_a_point(self) -> None:
        """Time the network at the next point; after some rounds, in which each point ran once, note what each costs.

        That is its share of a round's time, so that load which comes and goes between two rounds hits all points alike.
        """
        point = self._points[len(self._timings) % len(self._points)]
        self._timings.append(self._pipeline.time_inference(point.variant, point.budget))
        if len(self._timings) < _TIMING_ROUNDS * len(self._points):
            return
        rounds = np.reshape(self._timings, (_TIMING_ROUNDS, len(self._points)))
        means = rounds.mean(axis=1, keepdims=True)
        costs = np.median(rounds / means, axis=0) * np.median(means)
        log.info('operating points: %s', '; '.join(f'{p.name} {ms:.1f} ms' for p, ms in zip(self._points, costs)))
        # noise must not make a dearer point the cheaper one
        self._costs = tuple(map(float, np.maximum.accumulate(costs)))

    def _run_chosen(self, controller: BudgetController, wanted: Wanted, changes: int) -> None:
        point = self._points[controller.index]
        self._pipeline.set_operating_point(point.variant, point.budget)
        self._state = PointState(
            point.name, controller.reason, str(wanted.target), controller.pressure, controller.is_missed, point.miou,
            point.gflops, f'{controller.index + 1} of {len(self._points)}', changes, self._state.preparing,
        )  # fmt: skip


def _describe(wanted: Wanted) -> str:
    return f'a budget of {wanted.target}' if wanted.target else name_point(wanted.variant, wanted.budget)
