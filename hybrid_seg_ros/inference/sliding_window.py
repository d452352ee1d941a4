"""Sliding-window inference (the paper's test protocol): where the overlapping crops lie, and one report of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction
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


def stack_reports(predictions: Sequence[GridPrediction], plan: CropPlan, patch_size: int) -> TokenReport:
    """Stack the crops' grids from top to bottom; `areas` says where each lies on the image."""
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
