"""Confusion matrix, mean IoU and pixel accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np

from hybrid_seg_ros.label_space import UNLABELLED


class ConfusionMatrix:
    """Counts pixels by (target, predicted) class; pixels whose target is 255 are left out."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        # A last column takes predictions that are no class (255), so that they count as wrong.
        self._counts = np.zeros((self.num_classes, self.num_classes + 1), np.int64)

    def update(self, predicted: np.ndarray, target: np.ndarray) -> None:
        """Add a label map: both (H, W) uint8. Raises ValueError on other shapes or a target that is no class."""
        if predicted.shape != target.shape:
            raise ValueError(f'expected labels of one size, got predicted {predicted.shape}, target {target.shape}')
        known = target != UNLABELLED
        targets = target[known].astype(np.int64)
        if targets.size and targets.max() >= self.num_classes:
            raise ValueError(f'expected target labels below {self.num_classes} or 255, got {targets.max()}')
        columns = np.minimum(predicted[known], self.num_classes).astype(np.int64)
        size = self._counts.size
        self._counts += np.bincount(targets * (self.num_classes + 1) + columns, minlength=size).reshape(
            self._counts.shape
        )

    def add(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix of as many classes, which is left as it is."""
        if other.num_classes != self.num_classes:
            raise ValueError(f'expected a matrix of {self.num_classes} classes, got {other.num_classes}')
        self._counts += other._counts

    def iou_per_class(self) -> np.ndarray:
        """Return IoU in per cent (classes,); NaN for a class absent from targets and predictions."""
        hits = np.diag(self._counts).astype(np.float64)
        union = self._counts.sum(1) + self._counts[:, : self.num_classes].sum(0) - hits
        return 100.0 * np.divide(hits, union, out=np.full(self.num_classes, np.nan), where=union > 0)

    def iou_by_name(self, names: Sequence[str]) -> dict[str, Optional[float]]:
        """Return IoU in per cent by the classes' names; None for a class absent from targets and predictions."""
        return {name: None if np.isnan(iou) else float(iou) for name, iou in zip(names, self.iou_per_class())}

    def miou(self) -> float:
        """Return the mean IoU in per cent over classes that occur; NaN if none does."""
        ious = self.iou_per_class()
        return float(np.nanmean(ious)) if not np.isnan(ious).all() else float('nan')

    def pixel_accuracy(self) -> float:
        """Return the share of labelled pixels that are right, in per cent; NaN if there are none."""
        total = self._counts.sum()
        return float(100.0 * np.diag(self._counts).sum() / total) if total else float('nan')
