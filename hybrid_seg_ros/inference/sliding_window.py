"""Sliding-window inference: overlapping crops whose scores are averaged (the paper's test protocol)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction
from hybrid_seg_ros.inference.postprocess import upsample_scores
from hybrid_seg_ros.model_spec import SlidingWindow
from hybrid_seg_ros.segmentation import TokenReport

MAX_ASPECT = 4


@dataclass(frozen=True)
class CropPlan:
    """The image is resized to `resized_hw`; square crops of side `crop` start at each of `corners` (top, left)."""

    image_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    crop: int
    corners: tuple[tuple[int, int], ...]

    def crops(self, resized: np.ndarray) -> np.ndarray:
        """Cut (H, W, 3) uint8 into (crops, crop, crop, 3)."""
        return np.stack([resized[top : top + self.crop, left : left + self.crop] for top, left in self.corners])


def window_starts(side: int, crop: int, stride: int) -> list[int]:
    """Return where windows start along one axis; the last one is moved back so that it ends at the border."""
    count = max(side - crop + stride - 1, 0) // stride + 1
    return [min(index * stride, max(side - crop, 0)) for index in range(count)]


def plan_crops(image_hw: tuple[int, int], window: SlidingWindow) -> CropPlan:
    """Plan the crops of an image: short side resized to the crop, unless the long one then exceeds 4 crops."""
    scale = min(window.crop / min(image_hw), MAX_ASPECT * window.crop / max(image_hw))
    resized = tuple(max(window.crop, round(side * scale)) for side in image_hw)
    corners = tuple(
        (top, left)
        for top in window_starts(resized[0], window.crop, window.stride)
        for left in window_starts(resized[1], window.crop, window.stride)
    )
    return CropPlan(image_hw, (resized[0], resized[1]), window.crop, corners)


def average_crops(predictions: Sequence[GridPrediction], plan: CropPlan, patch_size: int) -> GridPrediction:
    """Average the crops' upsampled scores into one prediction with a cell per pixel of the resized image.

    The token report stacks the crops' grids from top to bottom; `areas` says where each lies on the image.
    """
    total = count = None
    for prediction, (top, left) in zip(predictions, plan.corners):
        scores = upsample_scores(prediction, (plan.crop, plan.crop))
        if total is None or count is None:
            total = np.zeros((len(scores), *plan.resized_hw), np.float32)
            count = np.zeros(plan.resized_hw, np.float32)
        total[:, top : top + plan.crop, left : left + plan.crop] += scores
        count[top : top + plan.crop, left : left + plan.crop] += 1
    first = predictions[0]
    kind = 'probability' if first.kind == 'mask_logits' else first.kind
    return GridPrediction(total / count, kind, _stack_reports(predictions, plan, patch_size), cell_px=1)


def _stack_reports(predictions: Sequence[GridPrediction], plan: CropPlan, patch_size: int) -> TokenReport:
    reports = [prediction.tokens for prediction in predictions]
    scale = (plan.image_hw[0] / plan.resized_hw[0], plan.image_hw[1] / plan.resized_hw[1])
    rows, columns = reports[0].grid_hw
    return TokenReport(
        (rows * len(reports), columns),
        np.concatenate([report.window_size for report in reports]),
        np.concatenate([report.pruned_after_layer for report in reports]),
        sum(report.entering for report in reports),
        tuple(
            (layer, sum(report.kept[stage][1] for report in reports))
            for stage, (layer, _) in enumerate(reports[0].kept)
        ),
        tuple(
            (top * scale[0], left * scale[1], rows * patch_size * scale[0], columns * patch_size * scale[1])
            for top, left in plan.corners
        ),
    )
