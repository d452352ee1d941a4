"""SequenceScore: adds up what one operating point makes of a video."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.evaluation.evaluate_dataset import STEPS, frame_gflops
from hybrid_seg_ros.evaluation.metrics import ConfusionMatrix
from hybrid_seg_ros.evaluation.sequence.flicker import Motion
from hybrid_seg_ros.evaluation.sequence.frame import Frame, FrameRecord, FrameResult
from hybrid_seg_ros.evaluation.sequence.report import RowReport
from hybrid_seg_ros.model_spec import ModelSpec, Variant


class SequenceScore:
    """Scores frames one after the other, in the order of the video."""

    def __init__(self, spec: ModelSpec, variant: Variant) -> None:
        self._spec, self._variant = spec, variant
        self._truth, self._dense = ConfusionMatrix(len(spec.classes)), ConfusionMatrix(len(spec.classes))
        self._before: Optional[tuple[int, np.ndarray]] = None
        self._steps: dict[str, list[float]] = {}
        self.records: list[FrameRecord] = []

    def add(
        self, frame: Frame, result: Optional[FrameResult], dense: Optional[np.ndarray], motion: Optional[Motion]
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
                windows = None if report is None else report.windows
                by_policy = report is None or report.merged_by != 'previous'
                gflops = frame_gflops(self._spec, self._variant, result.tokens, windows, by_policy)
            record = FrameRecord(
                frame.index, frame.stamp_ns, frame.time_s, True, result.tokens, gflops, result.time_ms, miou, accuracy,
                agreement, self._flicker(frame.index, result.labels, motion),
            )  # fmt: skip
            self._before = (frame.index, result.labels)
        self.records.append(record)
        return record

    def report(self, name: str, backend: str, dtype: str, device: str, reference: Optional[str]) -> RowReport:
        """Return the figures over all frames so far; `reference` names whose labels it was compared with."""
        answered = [record for record in self.records if record.answered]
        has_truth = any(record.miou is not None for record in answered)
        times = [record.time_ms for record in answered if record.time_ms is not None]
        has_dense = any(record.agreement is not None for record in answered)
        return RowReport(
            name=name, variant=str(self._variant), backend=backend, dtype=dtype, device=device,
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
        self, frame: Frame, labels: np.ndarray, total: ConfusionMatrix, target: Optional[np.ndarray]
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
