"""Run a video through several operating points, frame by frame, and score each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.evaluation.accuracy.evaluate import STEPS
from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix
from hybrid_seg_ros.evaluation.film.best_frames import BestFrames
from hybrid_seg_ros.evaluation.film.flicker import Motion
from hybrid_seg_ros.evaluation.film.frame import FrameRecord, FrameResult, VideoFrame
from hybrid_seg_ros.evaluation.film.report import FilmResult, LiveCounts, RowReport
from hybrid_seg_ros.evaluation.flops.count import frame_gflops
from hybrid_seg_ros.model_spec import ModelSpec, Variant

DENSE = Variant()

Source = Callable[[VideoFrame], Optional[FrameResult]]
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
    live: Optional[LiveCounts] = None
    shown: bool = True
    merged_by: str = ''

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it: the dense model, on every frame."""
        return self.variant == DENSE and self.live is None


def score_film(
    frames: Iterable[VideoFrame], rows: Sequence[Row], spec: ModelSpec, best_frames: BestFrames
) -> FilmResult:
    """Run every frame through all rows before the next, so that what else the machine does slows all alike.

    Each row is compared with the dense row of its backend and dtype, or else with the first dense one, if there is one.
    `best_frames` is shown each frame with what the rows that are shown made of it. Raises ValueError for a frame whose
    ground truth does not fit the model.
    """
    scores = [RowScore(spec, row) for row in rows]
    shown = [index for index, row in enumerate(rows) if row.shown]
    references = [reference_of(rows, index) for index in range(len(rows))]
    truth_flicker: list[Optional[float]] = []
    before: Optional[VideoFrame] = None
    count, labelled, last_s = 0, 0, 0.0
    for frame in frames:
        motion = _motion(before, frame)
        results = [row.source(frame) for row in rows]
        dense = [None if i is None or results[i] is None else results[i].labels for i in references]
        records = [
            score.add(frame, result, labels, motion) for score, result, labels in zip(scores, results, dense)
        ]
        truth_flicker.append(_truth_flicker(before, frame, motion))
        best_frames.look([results[i] for i in shown], [records[i] for i in shown], frame, [dense[i] for i in shown])
        before, count, last_s = frame, count + 1, frame.time_s
        labelled += frame.truth is not None
    reports = []
    for index in shown:
        reference = None if references[index] is None else rows[references[index]]
        compared_with = None if reference is None else f'dense, {reference.backend} {reference.dtype}'
        reports.append(scores[index].report(row_name(rows, rows[index]), compared_with))
    return FilmResult(
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


def _motion(before: Optional[VideoFrame], frame: VideoFrame) -> Optional[Motion]:
    """Follow the pixels from the frame before, if that is there and of the same size."""
    if before is None or frame.index != before.index + 1 or frame.image.shape != before.image.shape:
        return None
    return Motion.between(before.image, frame.image)


def _truth_flicker(before: Optional[VideoFrame], frame: VideoFrame, motion: Optional[Motion]) -> Optional[float]:
    truths: list[Optional[np.ndarray]] = [None if each is None else each.truth for each in (before, frame)]
    if motion is None or truths[0] is None or truths[1] is None:
        return None
    return finite(motion.flicker(truths[0], truths[1]))


class RowScore:
    """Scores frames one after the other, in the order of the video."""

    def __init__(self, spec: ModelSpec, row: Row) -> None:
        self._spec, self._row = spec, row
        self._truth, self._dense = ConfusionMatrix(len(spec.classes)), ConfusionMatrix(len(spec.classes))
        self._before: Optional[tuple[int, np.ndarray]] = None
        self._steps: dict[str, list[float]] = {}
        self.records: list[FrameRecord] = []

    def add(
        self, frame: VideoFrame, result: Optional[FrameResult], dense: Optional[np.ndarray], motion: Optional[Motion]
    ) -> FrameRecord:
        """Score what came of a frame, None if nothing did.

        `dense` are the dense model's labels, where agreement with them is asked for; `motion` leads from the frame of
        the index before to this one.
        """
        if result is None:
            record = FrameRecord(frame.index, frame.stamp_ns, frame.time_s, False, {})
        else:
            miou, accuracy = self._score(frame, result.labels, self._truth, frame.truth)
            _, agreement = self._score(frame, result.labels, self._dense, dense)
            if result.timings is not None:
                for step in STEPS:
                    self._steps.setdefault(step, []).append(getattr(result.timings, f'{step}_ms'))
            report, gflops = result.report, None
            if result.tokens:
                by_policy = report is None or report.merged_by != 'previous'
                gflops = frame_gflops(self._spec, self._row.variant, result.tokens, by_policy)
            record = FrameRecord(
                frame.index, frame.stamp_ns, frame.time_s, True, result.tokens, gflops, result.time_ms, miou, accuracy,
                agreement, self._flicker(frame.index, result.labels, motion),
            )  # fmt: skip
            self._before = (frame.index, result.labels)
        self.records.append(record)
        return record

    def report(self, name: str, reference: Optional[str]) -> RowReport:
        """Return the figures over all frames so far; `reference` names whose labels it was compared with."""
        row = self._row
        answered = [record for record in self.records if record.answered]
        has_truth = any(record.miou is not None for record in answered)
        times = [record.time_ms for record in answered if record.time_ms is not None]
        has_dense = any(record.agreement is not None for record in answered)
        return RowReport(
            name=name, variant=str(row.variant), backend=row.backend, dtype=row.dtype, device=row.device, live=row.live,
            reference=reference if has_dense else None,
            frames=len(answered), labelled_frames=sum(record.miou is not None for record in answered),
            miou=self._truth.miou() if has_truth else None,
            pixel_accuracy=self._truth.pixel_accuracy() if has_truth else None,
            iou_per_class=self._truth.iou_by_name(self._spec.classes.names) if has_truth else {},
            agreement=self._dense.pixel_accuracy() if has_dense else None,
            agreement_miou=self._dense.miou() if has_dense else None,
            flicker=mean_of(record.flicker for record in answered),
            flicker_pairs=sum(record.flicker is not None for record in answered),
            tokens_mean=_mean_tokens(answered),
            gflops_mean=mean_of(record.gflops for record in answered),
            p50_ms=float(np.percentile(times, 50)) if times else None,
            p95_ms=float(np.percentile(times, 95)) if times else None,
            median_ms={step: float(np.median(laps)) for step, laps in self._steps.items()},
        )  # fmt: skip

    def _score(
        self, frame: VideoFrame, labels: np.ndarray, total: ConfusionMatrix, target: Optional[np.ndarray]
    ) -> tuple[Optional[float], Optional[float]]:
        """Add a label map to `total`; return mIoU and pixel accuracy of this frame alone."""
        if target is None:
            return None, None
        if labels.shape != target.shape:
            labels = cv2.resize(labels, target.shape[::-1], interpolation=cv2.INTER_NEAREST)
        matrix = ConfusionMatrix(total.num_classes)
        try:
            matrix.update(labels, target)
        except ValueError as error:
            raise ValueError(f'frame {frame.index} (stamp {frame.stamp_ns}): {error}') from error
        total.add(matrix)
        return finite(matrix.miou()), finite(matrix.pixel_accuracy())

    def _flicker(self, index: int, labels: np.ndarray, motion: Optional[Motion]) -> Optional[float]:
        """Return the flicker since the frame before, None if that one was not answered."""
        if motion is None or self._before is None or self._before[0] != index - 1:
            return None
        return finite(motion.flicker(self._before[1], labels))


def mean_of(values: Iterable[Optional[float]]) -> Optional[float]:
    """Return the mean of those values that are there; None without any."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def finite(value: float) -> Optional[float]:
    """Return None for nan."""
    return None if math.isnan(value) else float(value)


def _mean_tokens(records: list[FrameRecord]) -> Mapping[str, float]:
    known = [record.tokens for record in records if record.tokens]
    return {stage: float(np.mean([tokens[stage] for tokens in known])) for stage in (known[0] if known else ())}
