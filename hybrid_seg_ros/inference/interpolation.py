"""Bilinear interpolation between knots that need not be equally spaced, and the class with the highest score there.

Between four neighbouring knots every class is bilinear. A class that another one exceeds at all four of them cannot win
there, so that most regions between knots have one winner, known beforehand, and the others a few contenders. Only these
are interpolated: the labels are those of interpolating all classes with the same arithmetic and taking the argmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple, Optional

import numpy as np

ROUNDING = 16 * np.finfo(np.float32).eps
"""Times the largest score: more than interpolation can round two scores apart."""
PIXELS_AT_ONCE, SCORES_AT_ONCE = 1 << 18, 1 << 19
"""Of regions with several contenders, which bounds memory when all classes compete everywhere."""


class Neighbours(NamedTuple):
    """Between which knots positions (n,) lie, and how far from `low` to `high`: `weight` (n,) float32 in [0, 1]."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class InterpolationAxis:
    """Where N output pixels lie between knots: in which of G intervals, `interval` (N,), and how far in, `weight` (N,).

    `low` and `high` (G,) are the knots at an interval's ends: the same one twice where pixels lie outside all knots.
    `pixels` (G, P) are those of each interval, the last one repeated where it has fewer than P; `weights` are theirs.
    """

    interval: np.ndarray
    weight: np.ndarray
    low: np.ndarray
    high: np.ndarray
    pixels: np.ndarray
    weights: np.ndarray


@lru_cache(maxsize=64)
def cell_centres(cells: int, cell_px: int) -> tuple[float, ...]:
    """Return where the centres of a row of cells lie; pixel i is at i."""
    return tuple((cell + 0.5) * cell_px - 0.5 for cell in range(cells))


def pixel_positions(output: int, content: int) -> np.ndarray:
    """Return where `output` pixels lie in a row of `content` pixels resized to them (align_corners=False)."""
    return (np.arange(output) + 0.5) * (content / output) - 0.5


def neighbours(knots_px: Sequence[float], positions_px: np.ndarray) -> Neighbours:
    """Return the knots on either side of each position; outside all knots the nearest one, twice."""
    knots = np.asarray(knots_px, np.float64)
    after = np.searchsorted(knots, positions_px, 'right')
    low, high = np.maximum(after - 1, 0), np.minimum(after, len(knots) - 1)
    gap = np.where(high > low, knots[high] - knots[low], 1.0)
    weight = np.where(high > low, (positions_px - knots[low]) / gap, 0.0)
    return Neighbours(low, high, weight.astype(np.float32))


def interpolation_matrix(knots_px: Sequence[float], positions_px: np.ndarray) -> np.ndarray:
    """Return (positions, knots) float32 that interpolates values at the knots; clamped outside all knots."""
    low, high, weight = neighbours(knots_px, positions_px)
    matrix = np.zeros((len(low), len(knots_px)), np.float32)
    each = np.arange(len(low))
    matrix[each, low] = 1 - weight
    matrix[each, high] += weight
    return matrix


@lru_cache(maxsize=256)
def interpolation_axis(
    knots_px: tuple[float, ...], content: int, output: int, start: int = 0, stop: Optional[int] = None
) -> InterpolationAxis:
    """Return where `output` pixels, resized from `content` pixels, lie between knots at `knots_px` of these.

    Pixels outside all knots take the value of the nearest one. `start` and `stop` choose some of the output's pixels.
    """
    low, high, weight = neighbours(knots_px, pixel_positions(output, content)[start:stop])
    first = np.flatnonzero(np.diff(low, prepend=-1) + np.diff(high, prepend=-1))  # of each interval
    count = np.diff(first, append=len(low))
    pixels = first[:, None] + np.minimum(np.arange(count.max()), count[:, None] - 1)  # (G, P)
    interval = np.repeat(np.arange(len(first)), count)
    return InterpolationAxis(interval, weight, low[first], high[first], pixels, weight[pixels])


def interpolated_argmax(
    scores: np.ndarray, rows: InterpolationAxis, columns: InterpolationAxis, values: Optional[np.ndarray] = None,
    with_values: bool = True,
) -> tuple[np.ndarray, Optional[np.ndarray]]:  # fmt: skip
    """Return labels (H, W) uint8, the argmax of the interpolated `scores`, and (H, W) float32, the winner's value.

    `scores` (S, h, w) float32 are given at the knots of the axes, S at most 256. The lowest class wins ties. The value
    is the winner's score, or what is interpolated from its `values` (S, h, w) float32; None unless `with_values`.
    """
    if not 1 <= len(scores) <= 256:
        raise ValueError(f'expected scores (S, h, w) of 1 to 256 classes, got {scores.shape}')
    by_class = np.ascontiguousarray(scores.reshape(len(scores), -1))  # (S, knots)
    of_winner = by_class if values is None else np.ascontiguousarray(values.reshape(len(values), -1))
    highest = by_class.max(0)
    margin = np.float32(max(ROUNDING * max(-by_class.min(), highest.max()), np.finfo(np.float32).tiny))
    near = (by_class > highest - margin).view(np.uint8)
    lone = np.multiply(near, np.arange(len(near), dtype=np.uint8)[:, None]).max(0).astype(np.int64)
    lone[np.add.reduce(near, 0, dtype=np.uint8) != 1] = -1  # 256 near ones wrap to 0, which is not 1 either
    sides = product((rows.low, rows.high), (columns.low, columns.high))
    corners = [row[:, None] * scores.shape[2] + column for row, column in sides]  # four (R, C): knots of regions
    winner, *others = (lone.take(corner) for corner in corners)
    settled = (winner >= 0) & np.logical_and.reduce([winner == other for other in others])
    labels = winner.astype(np.uint8).take(rows.interval, 0).take(columns.interval, 1)
    drawn = None
    if with_values:
        place = np.maximum(winner, 0) * by_class.shape[1]
        at_rows = [of_winner.take(place + corner).take(rows.interval, 0) for corner in corners]  # (H, C) each
        left, step = _between_rows(at_rows, rows.weight[:, None])
        drawn = step.take(columns.interval, 1)
        drawn *= columns.weight
        drawn += left.take(columns.interval, 1)
    row, column = np.nonzero(~settled)
    region_px = rows.pixels.shape[1] * columns.pixels.shape[1]
    at_once = max(1, min(PIXELS_AT_ONCE // region_px, SCORES_AT_ONCE // len(scores)))
    for start in range(0, len(row), at_once):
        some = row[start : start + at_once], column[start : start + at_once]
        found = _compete(
            by_class, None if values is None or not with_values else of_winner, [corner[some] for corner in corners],
            rows.weights[some[0]], columns.weights[some[1]], margin,
        )  # fmt: skip
        pixels = rows.pixels[some[0]][:, :, None], columns.pixels[some[1]][:, None]
        labels[pixels] = found[0]
        if drawn is not None:
            drawn[pixels] = found[1]
    return labels, drawn


def _compete(
    scores: np.ndarray, values: Optional[np.ndarray], corners: list[np.ndarray], row_weights: np.ndarray,
    column_weights: np.ndarray, margin: np.float32,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the winners' labels and values, or scores without `values`, (n, P rows, P columns), in n regions.

    `scores` and `values` (S, knots); `corners` are four times (n,) knots. Of all classes those compete that the
    favourite, the one with the highest sum at the corners, does not rule out.
    """
    by_corner = [scores.take(corner, 1) for corner in corners]  # (S, n) each
    favourite = sum(by_corner[1:], by_corner[0]).argmax(0), np.arange(len(corners[0]))
    possible = np.logical_or.reduce([each > each[favourite] - margin for each in by_corner])
    possible[favourite] = True  # also where scores are not finite
    best = np.full((len(corners[0]), row_weights.shape[1], column_weights.shape[1]), -np.inf, np.float32)
    labels, of_best = np.zeros(best.shape, np.uint8), best if values is None else np.zeros_like(best)
    for index in np.flatnonzero(possible.any(1)):
        regions = np.flatnonzero(possible[index])
        places = [corner[regions] for corner in corners]
        weights = row_weights[regions], column_weights[regions]
        found, before = _interpolate(scores[index], places, *weights), best[regions]
        better = found > before
        # a later class has the higher number: faster than a masked copy
        labels[regions] = np.maximum(labels[regions], better.view(np.uint8) * np.uint8(index))
        if values is not None:
            of_best[regions] = np.where(better, _interpolate(values[index], places, *weights), of_best[regions])
        best[regions] = np.maximum(found, before)
    return labels, of_best


def _interpolate(
    values: np.ndarray, corners: list[np.ndarray], row_weights: np.ndarray, column_weights: np.ndarray
) -> np.ndarray:
    """Interpolate between four places of `values` per region; weights (n, P) each; returns (n, P rows, P columns)."""
    left, step = _between_rows([values.take(corner)[:, None] for corner in corners], row_weights)
    found = step[:, :, None] * column_weights[:, None]
    found += left[:, :, None]
    return found


def _between_rows(corners: list[np.ndarray], weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate four corners between rows; return what is on the left, and the step from there to the right."""
    top_left, top_right, bottom_left, bottom_right = corners
    left = (bottom_left - top_left) * weight
    left += top_left
    step = (bottom_right - top_right) * weight
    step += top_right
    step -= left
    return left, step
