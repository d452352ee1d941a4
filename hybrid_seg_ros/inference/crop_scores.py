"""Overlapping crops' class scores to one label map: averaged at the resized image's size, resized, argmax."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction
from hybrid_seg_ros.inference.interpolation import (
    Neighbours,
    cell_centres,
    interpolation_axis,
    interpolation_matrix,
    neighbours,
    pixel_positions,
)
from hybrid_seg_ros.inference.mask_scores import argmax_in_bands, mixed_masks
from hybrid_seg_ros.inference.postprocess import label_knots
from hybrid_seg_ros.inference.sliding_window import CropPlan

SCORES_AT_ONCE = 1 << 16  # that a step of averaging interpolates: they stay in the processor's caches


@dataclass(frozen=True)
class KnotScores:
    """Class scores (S, h, w) float32 where pixels `rows_px` (h) and `columns_px` (w) of the resized image cross."""

    scores: np.ndarray
    rows_px: tuple[int, ...]
    columns_px: tuple[int, ...]


def postprocess_crops(
    predictions: Sequence[GridPrediction], plan: CropPlan, output_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (H, W) uint8 and confidence (H, W) float32 in [0, 1] for an output of `output_hw`.

    The crops' upsampled scores are averaged at the resized image's size, resized to the output's, and the argmax is
    taken, as in the official test protocol. Confidence: see `label_knots`; of 'mask_logits' it is the winner's score.
    """
    if predictions[0].class_mix is None:
        average = average_crops(predictions, plan)
        rows, columns = (
            interpolation_axis(knots, resized, output)
            for knots, resized, output in zip((average.rows_px, average.columns_px), plan.resized_hw, output_hw)
        )
        return label_knots(average.scores, predictions[0].kind, rows, columns)
    average_rows = _mask_averager(predictions, plan)
    rows, columns = (
        neighbours(range(resized), pixel_positions(output, resized))
        for resized, output in zip(plan.resized_hw, output_hw)
    )

    def resized_scores(band: slice) -> np.ndarray:
        low, high, weight = _part(rows, band)
        scores = average_rows(low[0], high[-1] + 1)
        return _interpolate(_interpolate(scores, Neighbours(low - low[0], high - low[0], weight), 0), columns, 1)

    labels, highest = argmax_in_bands(resized_scores, output_hw, len(predictions[0].class_mix))
    return labels, np.clip(highest, 0.0, 1.0)


def average_crops(predictions: Sequence[GridPrediction], plan: CropPlan) -> KnotScores:
    """Average the crops' upsampled scores, at such pixels of the resized image that they are bilinear in between.

    Not for 'mask_logits', whose scores are not bilinear.
    """
    first, crop = predictions[0], plan.crop
    grids = [cell_centres(cells, first.cell_px) for cells in first.scores.shape[1:]]
    rows, columns = (
        crop_knots(tuple(sorted(set(starts))), crop, grid, resized)
        for starts, grid, resized in zip(zip(*plan.corners), grids, plan.resized_hw)
    )
    total = np.zeros((len(rows), len(columns), len(first.scores)), np.float32)  # classes last: they are copied together
    count = np.zeros((*total.shape[:2], 1), np.float32)
    for prediction, (top, left) in zip(predictions, plan.corners):
        row_part, row_cells = _inside(rows, top, crop, grids[0])
        column_part, column_cells = _inside(columns, left, crop, grids[1])
        by_cell = cv2.transpose(prediction.scores.reshape(len(first.scores), -1))
        by_cell = by_cell.reshape(*prediction.scores.shape[1:], -1)  # (h, w, S)
        step = max(1, SCORES_AT_ONCE // total[0, column_part].size)
        for start in range(row_part.start, row_part.stop, step):
            stop = min(start + step, row_part.stop)
            local = _part(row_cells, slice(start - row_part.start, stop - row_part.start))
            total[start:stop, column_part] += _interpolate(_interpolate(by_cell, local, 0), column_cells, 1)
        count[row_part, column_part] += 1
    total /= count
    return KnotScores(total.transpose(2, 0, 1), rows, columns)


@lru_cache(maxsize=64)
def crop_knots(starts: tuple[int, ...], crop: int, grid_px: tuple[float, ...], resized: int) -> tuple[int, ...]:
    """Return the pixels along one axis of the resized image between which the averaged scores are linear.

    They may bend at any crop's cell centres (`grid_px`, within the crop) and jump at its borders: the knots are the
    first and the last pixel between two such places.
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


def _mask_averager(predictions: Sequence[GridPrediction], plan: CropPlan) -> Callable[[int, int], np.ndarray]:
    """Return a function of (first row, row after the last) of the resized image, to scores (rows, W, classes)."""
    first, crop = predictions[0], plan.crop
    rows, columns = (
        interpolation_matrix(cell_centres(cells, first.cell_px), np.arange(crop)) for cells in first.scores.shape[1:]
    )

    def average_rows(start: int, stop: int) -> np.ndarray:
        total = np.zeros((stop - start, plan.resized_hw[1], len(first.class_mix)), np.float32)
        count = np.zeros((*total.shape[:2], 1), np.float32)
        for prediction, (top, left) in zip(predictions, plan.corners):
            begin, end = max(start, top), min(stop, top + crop)
            if begin < end:
                part = slice(begin - start, end - start), slice(left, left + crop)
                total[part] += mixed_masks(prediction, rows[begin - top : end - top], columns)
                count[part] += 1
        total /= count
        return total

    return average_rows


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
