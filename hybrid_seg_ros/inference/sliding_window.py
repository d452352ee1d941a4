"""Sliding-window inference (the paper's test protocol): where crops lie, and one label map and report of them all."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hybrid_seg_ros.inference.interpolation import (
    Neighbours,
    cell_centres,
    interpolation_axis,
    interpolation_matrix,
    neighbours,
    pixel_positions,
)
from hybrid_seg_ros.inference.postprocess import argmax_in_bands, label_knots, mixed_masks
from hybrid_seg_ros.model_spec import SlidingWindow
from hybrid_seg_ros.segmentation import GridPrediction, TokenReport

MAX_ASPECT = 4
SCORES_OF_BAND = 1 << 21  # 8 MB of averaged scores, of which there are two copies at a time
SCORES_OF_STEP = 1 << 16  # interpolated at a time while averaging: they stay in the processor's caches


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
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (H, W) uint8 and confidence (H, W) float32 in [0, 1] for an output of `output_hw`.

    The crops' upsampled scores are averaged at the resized image's size, resized to the output's, and the argmax is
    taken, as in the official test protocol. Confidence: see `label_knots`; of 'mask_logits' it is the winner's score.
    """
    if predictions[0].kind == 'mask_logits':
        return _label_mask_crops(predictions, plan, output_hw)
    row_knots, column_knots = crop_knots(plan, predictions[0])
    columns = interpolation_axis(column_knots, plan.resized_hw[1], output_hw[1])
    between = neighbours(row_knots, pixel_positions(output_hw[0], plan.resized_hw[0]))
    labels, confidence = np.empty(output_hw, np.uint8), np.empty(output_hw, np.float32)
    count = len(predictions[0].scores) * len(row_knots) * len(column_knots)
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

    Takes ascending pixels, all of which lie in some crop; returns (S, rows, columns) float32. Not for 'mask_logits'.
    """
    grids = _cell_centres(predictions[0])
    classes = len(predictions[0].scores)
    total = np.zeros((len(rows_px), len(columns_px), classes), np.float32)  # classes last: they are copied together
    count = np.zeros((*total.shape[:2], 1), np.float32)
    for prediction, (top, left) in zip(predictions, plan.corners):
        rows, row_cells = _inside(tuple(rows_px), top, plan.crop, grids[0])
        columns, column_cells = _inside(tuple(columns_px), left, plan.crop, grids[1])
        by_cell = np.ascontiguousarray(prediction.scores.transpose(1, 2, 0))
        step = max(1, SCORES_OF_STEP // (classes * (columns.stop - columns.start)))
        for start in range(rows.start, rows.stop, step):
            stop = min(start + step, rows.stop)
            local = _part(row_cells, slice(start - rows.start, stop - rows.start))
            total[start:stop, columns] += _interpolate(_interpolate(by_cell, local, 0), column_cells, 1)
        count[rows, columns] += 1
    total /= count
    return total.transpose(2, 0, 1)


def crop_knots(plan: CropPlan, prediction: GridPrediction) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return rows and columns of the resized image between which the averaged scores of the crops are bilinear."""
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


@lru_cache(maxsize=256)
def _inside(knots: tuple[int, ...], start: int, crop: int, grid_px: tuple[float, ...]) -> tuple[slice, Neighbours]:
    """Return which knots lie inside a crop, and the crop's cells that they lie between."""
    part = slice(bisect_left(knots, start), bisect_left(knots, start + crop))
    return part, neighbours(grid_px, np.array(knots[part]) - start)


def _label_mask_crops(
    predictions: Sequence[GridPrediction], plan: CropPlan, output_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    crop, classes = plan.crop, len(predictions[0].class_mix)
    row_matrix, column_matrix = (interpolation_matrix(grid, np.arange(crop)) for grid in _cell_centres(predictions[0]))
    rows, columns = (
        neighbours(range(resized), pixel_positions(output, resized))
        for resized, output in zip(plan.resized_hw, output_hw)
    )

    def scores_of_rows(band: slice) -> np.ndarray:
        low, high, weight = _part(rows, band)
        start, stop = low[0], high[-1] + 1
        total = np.zeros((stop - start, plan.resized_hw[1], classes), np.float32)
        count = np.zeros((*total.shape[:2], 1), np.float32)
        for prediction, (top, left) in zip(predictions, plan.corners):
            begin, end = max(start, top), min(stop, top + crop)
            if begin < end:
                part = slice(begin - start, end - start), slice(left, left + crop)
                total[part] += mixed_masks(prediction, row_matrix[begin - top : end - top], column_matrix)
                count[part] += 1
        total /= count
        return _interpolate(_interpolate(total, Neighbours(low - start, high - start, weight), 0), columns, 1)

    labels, highest = argmax_in_bands(scores_of_rows, output_hw, classes)
    return labels, np.clip(highest, 0.0, 1.0)


def _cell_centres(prediction: GridPrediction) -> list[tuple[float, ...]]:
    return [cell_centres(cells, prediction.cell_px) for cells in prediction.scores.shape[1:]]


def _part(between: Neighbours, part: slice) -> Neighbours:
    return Neighbours(*(array[part] for array in between))


def _interpolate(values: np.ndarray, between: Neighbours, axis: int) -> np.ndarray:
    """Interpolate values (h, w, S) along axis 0 or 1."""
    if not between.weight.any():
        return values.take(between.low, axis)
    result, step = values.take(between.low, axis), values.take(between.high, axis)
    step -= result
    step *= between.weight[:, None, None] if axis == 0 else between.weight[:, None]
    result += step
    return result
