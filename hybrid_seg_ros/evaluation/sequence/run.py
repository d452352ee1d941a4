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

DENSE = Variant()

Source = Callable[[Frame], Optional[FrameResult]]
"""Returns what one operating point makes of a frame, None for a frame that was dropped."""


@dataclass(frozen=True)
class Row:
    """An operating point on a backend, and where its results come from.

    One that is not `shown` runs only so that the others can be compared with it. `merged_by` names who chooses the
    windows of a variant that merges, as of a `Film`.
    """

    variant: Variant
    backend: str
    dtype: str
    device: str
    source: Source
    live: Optional[LiveFigures] = None
    shown: bool = True
    merged_by: str = ''

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it: the dense model, on every frame."""
        return self.variant == DENSE and self.live is None


@dataclass(frozen=True)
class SequenceResult:
    """The rows that are shown, the records of their frames, the number of frames, and of those with ground truth."""

    rows: Sequence[RowReport]
    records: Sequence[Sequence[FrameRecord]]
    frames: int
    duration_s: float
    truth_frames: int
    truth_flicker: Optional[float]


def run_sequence(
    frames: Iterable[Frame], rows: Sequence[Row], spec: ModelSpec, album: FrameAlbum
) -> SequenceResult:
    """Run every frame through all rows before the next, so that what else the machine does slows all alike.

    Each row is compared with the dense row of its backend and dtype, or else with the first dense one, if there is one.
    `album` is shown each frame with what the rows that are shown made of it. Raises ValueError for a frame whose ground
    truth does not fit the model.
    """
    scores = [SequenceScore(spec, row.variant) for row in rows]
    shown = [index for index, row in enumerate(rows) if row.shown]
    references = [reference_of(rows, index) for index in range(len(rows))]
    truth_flicker: list[Optional[float]] = []
    before: Optional[Frame] = None
    count, labelled, last_s = 0, 0, 0.0
    for frame in frames:
        motion = _motion(before, frame)
        results = [row.source(frame) for row in rows]
        dense = [None if i is None or results[i] is None else results[i].labels for i in references]
        records = [
            score.add(frame, result, labels, motion) for score, result, labels in zip(scores, results, dense)
        ]
        truth_flicker.append(_truth_flicker(before, frame, motion))
        album.look([results[i] for i in shown], [records[i] for i in shown], frame, [dense[i] for i in shown])
        before, count, last_s = frame, count + 1, frame.time_s
        labelled += frame.truth is not None
    reports = []
    for index in shown:
        row, reference = rows[index], references[index]
        report = scores[index].report(
            row_name(rows, row), row.backend, row.dtype, row.device,
            None if reference is None else f'dense, {rows[reference].backend} {rows[reference].dtype}',
        )  # fmt: skip
        reports.append(dataclasses.replace(report, live=row.live))
    return SequenceResult(
        reports, [scores[i].records for i in shown], count, last_s, labelled, mean_of(truth_flicker)
    )


def reference_of(rows: Sequence[Row], index: int) -> Optional[int]:
    """Return the row that a row is compared with; None for one that others are compared with, or if there is none."""
    row = rows[index]
    if row.is_reference:
        return None
    dense = [other for other, candidate in enumerate(rows) if candidate.is_reference]
    same = [other for other in dense if (rows[other].backend, rows[other].dtype) == (row.backend, row.dtype)]
    return next(iter(same or dense), None)


def row_name(rows: Sequence[Row], row: Row) -> str:
    """Name a row as shortly as it can be told apart: by variant; by policy, backend and dtype where those differ."""
    shown = [other for other in rows if other.shown]
    backends = {other.backend for other in shown}
    dtypes = {(other.backend, other.dtype) for other in shown}
    name = str(row.variant)
    if row.merged_by and len({other.merged_by for other in shown if other.merged_by}) > 1:
        name += f' by {row.merged_by}'
    if len(dtypes) > 1:
        name += f', {row.backend}'
    if len(dtypes) > len(backends):
        name += f' {row.dtype}'
    return name


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
