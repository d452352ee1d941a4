"""Sliding-window inference (the paper's test protocol): where crops lie, and one label map and report of them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hybrid_seg_ros.inference.interpolation import (
    cell_centres,
    interpolation_axis,
    interpolation_matrix,
    neighbours,
    pixel_positions,
)
from hybrid_seg_ros.inference.postprocess import label_knots, sample_grid
from hybrid_seg_ros.model_spec import SlidingWindow
from hybrid_seg_ros.segmentation import GridPrediction, TokenReport

MAX_ASPECT = 4
SCORES_OF_BAND = 1 << 21
"""Of averaged scores: 8 MB, of which there are two copies at a time."""


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


def postprocess_crops(
    predictions: Sequence[GridPrediction], plan: CropPlan, output_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return labels (H, W) uint8 and confidence (H, W) float32 in [0, 1] for an output of `output_hw`.

    The crops' upsampled scores are averaged at the resized image's size, resized to the output's, and the argmax is
    taken, as in the official test protocol. Confidence: see `label_knots`; of 'mask_logits' it is the winner's score.
    """
    row_knots, column_knots = crop_knots(plan, predictions[0])
    columns = interpolation_axis(column_knots, plan.resized_hw[1], output_hw[1])
    between = neighbours(row_knots, pixel_positions(output_hw[0], plan.resized_hw[0]))
    labels, confidence = np.empty(output_hw, np.uint8), np.empty(output_hw, np.float32)
    count = _num_classes(predictions[0]) * len(row_knots) * len(column_knots)
    step = -(-output_hw[0] // -(-count // SCORES_OF_BAND))
    for start in range(0, output_hw[0], step):
        stop = min(start + step, output_hw[0])
        needed = row_knots[between.low[start] : between.high[stop - 1] + 1]
        rows = interpolation_axis(needed, plan.resized_hw[0], output_hw[0], start, stop)
        scores = average_crops(predictions, plan, needed, column_knots)
        labels[start:stop], confidence[start:stop] = label_knots(scores, predictions[0].kind, rows, columns)
    return labels, confidence


def average_crops(
    predictions: Sequence[GridPrediction], plan: CropPlan, rows_px: Sequence[int], columns_px: Sequence[int]
) -> np.ndarray:
    """Average the crops' upsampled scores where rows and columns of the resized image cross.

    Takes ascending pixels, all of which lie in some crop; returns (classes, rows, columns) float32.
    """
    pixels = np.asarray(rows_px), np.asarray(columns_px)
    total = np.zeros((_num_classes(predictions[0]), len(rows_px), len(columns_px)), np.float32)
    count = np.zeros(total.shape[1:], np.float32)
    for prediction, corner in zip(predictions, plan.corners):
        inside = [slice(*np.searchsorted(px, (start, start + plan.crop))) for px, start in zip(pixels, corner)]
        matrices = [
            interpolation_matrix(grid, px[part] - start)
            for grid, px, part, start in zip(_cell_centres(prediction), pixels, inside, corner)
        ]
        scores = sample_grid(prediction, *matrices)
        if prediction.class_mix is not None:
            scores = np.tensordot(prediction.class_mix, scores, 1)
        total[:, inside[0], inside[1]] += scores
        count[inside[0], inside[1]] += 1
    total /= count
    return total


def crop_knots(plan: CropPlan, prediction: GridPrediction) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return rows and columns of the resized image between which the averaged scores of the crops are bilinear.

    Of 'mask_logits' these are all: their sigmoid bends everywhere.
    """
    if prediction.class_mix is not None:
        return tuple(range(plan.resized_hw[0])), tuple(range(plan.resized_hw[1]))
    rows, columns = (
        _axis_knots(tuple(sorted(set(starts))), plan.crop, grid, resized)
        for starts, grid, resized in zip(zip(*plan.corners), _cell_centres(prediction), plan.resized_hw)
    )
    return rows, columns


@lru_cache(maxsize=64)
def _axis_knots(starts: tuple[int, ...], crop: int, grid_px: tuple[float, ...], resized: int) -> tuple[int, ...]:
    """Return the first and the last pixel between any two places where the average bends or jumps.

    It may bend at each crop's cell centres (`grid_px`, within the crop) and jump at its borders.
    """
    bends = {start + offset for start in starts for offset in (-0.5, *grid_px, crop - 0.5) if offset < crop}
    inside = sorted({-0.5, resized - 0.5} | {bend for bend in bends if -0.5 < bend < resized - 0.5})
    ends = ((math.ceil(low), math.floor(high)) for low, high in zip(inside, inside[1:]))
    return tuple(sorted({pixel for first, last in ends if first <= last for pixel in (first, last)}))


def _cell_centres(prediction: GridPrediction) -> list[tuple[float, ...]]:
    return [cell_centres(cells, prediction.cell_px) for cells in prediction.scores.shape[1:]]


def _num_classes(prediction: GridPrediction) -> int:
    return len(prediction.scores if prediction.class_mix is None else prediction.class_mix)
