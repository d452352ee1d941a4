"""Run a video through several operating points, frame by frame, and score each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from hybrid_seg_ros.evaluation.sequence.album import FrameAlbum
from hybrid_seg_ros.evaluation.sequence.flicker import Motion
from hybrid_seg_ros.evaluation.sequence.frame import Frame, FrameRecord, FrameResult
from hybrid_seg_ros.evaluation.sequence.report import LiveFigures, RowReport
from hybrid_seg_ros.evaluation.sequence.score import SequenceScore, finite, mean_of
from hybrid_seg_ros.model_spec import ModelSpec, Variant

Source = Callable[[Frame], Optional[FrameResult]]
"""Returns what one operating point makes of a frame, None for a frame that was dropped."""


@dataclass(frozen=True)
class Row:
    """An operating point on a backend, and where its results come from.

    One that is not `shown` runs only so that the others can be compared with it.
    """

    variant: Variant
    backend: str
    dtype: str
    device: str
    source: Source
    live: Optional[LiveFigures] = None
    shown: bool = True


@dataclass(frozen=True)
class SequenceResult:
    """The rows that are shown, the records of their frames, and the number of frames."""

    rows: Sequence[RowReport]
    records: Sequence[Sequence[FrameRecord]]
    frames: int
    duration_s: float
    truth_flicker: Optional[float]


def run_sequence(
    frames: Iterable[Frame], rows: Sequence[Row], spec: ModelSpec, reference: Optional[int], album: FrameAlbum
) -> SequenceResult:
    """Run every frame through all rows before the next, so that what else the machine does slows all alike.

    `reference` is the row whose labels the others are compared with, None to compare with nobody. `album` is shown each
    frame with what the rows that are shown made of it. Raises ValueError for a frame whose ground truth does not fit
    the model.
    """
    scores = [SequenceScore(spec, row.variant) for row in rows]
    names = row_names(rows)
    truth_flicker: list[Optional[float]] = []
    before: Optional[Frame] = None
    first_ns, count, last_s = 0, 0, 0.0
    for frame in frames:
        first_ns = first_ns if count else frame.stamp_ns
        last_s = (frame.stamp_ns - first_ns) / 1e9
        motion = _motion(before, frame)
        results = [row.source(frame) for row in rows]
        dense = None if reference is None or results[reference] is None else results[reference].labels
        records = [
            score.add(frame, result, None if index == reference else dense, motion, last_s)
            for index, (score, result) in enumerate(zip(scores, results))
        ]
        truth_flicker.append(_truth_flicker(before, frame, motion))
        shown = [index for index, row in enumerate(rows) if row.shown]
        album.look([results[i] for i in shown], [records[i] for i in shown], frame, dense)
        before, count = frame, count + 1
    reports = [
        dataclasses.replace(
            score.report(name, str(row.variant), row.backend, row.dtype, row.device), live=row.live
        )
        for score, name, row in zip(scores, names, rows) if row.shown
    ]  # fmt: skip
    records = [score.records for score, row in zip(scores, rows) if row.shown]
    return SequenceResult(reports, records, count, last_s, mean_of(truth_flicker))


def row_names(rows: Sequence[Row]) -> list[str]:
    """Name the rows as shortly as they can be told apart: by variant, and by backend and dtype where those differ."""
    shown = [row for row in rows if row.shown]
    backends = {row.backend for row in shown}
    dtypes = {(row.backend, row.dtype) for row in shown}
    names = []
    for row in rows:
        name = str(row.variant)
        if len(backends) > 1 or len(dtypes) > 1:
            name += f', {row.backend}'
        if len(dtypes) > len(backends):
            name += f' {row.dtype}'
        names.append(name)
    return names


def _motion(before: Optional[Frame], frame: Frame) -> Optional[Motion]:
    """Follow the pixels from the frame before, if that is there and of the same size."""
    if before is None or frame.index != before.index + 1 or frame.image.shape != before.image.shape:
        return None
    return Motion.between(before.image, frame.image)


def _truth_flicker(before: Optional[Frame], frame: Frame, motion: Optional[Motion]) -> Optional[float]:
    truths: list[Optional[np.ndarray]] = [None if each is None else each.truth for each in (before, frame)]
    if motion is None or truths[0] is None or truths[1] is None:
        return None
    return finite(motion.flicker(truths[0], truths[1]))
