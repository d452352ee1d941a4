"""The class with the highest interpolated score at each pixel, without interpolating every class everywhere.

Between four neighbouring knots every class is bilinear. A class that another one exceeds at all four of them cannot win
there, so that most regions between knots have one winner, known beforehand, and the others a few contenders. Only these
are interpolated: the labels are those of interpolating all classes with the same arithmetic and taking the argmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.inference.interpolation import InterpolationAxis, IntervalGroup

CANVAS_PIXELS = 320_000  # drawn at a time: a few arrays of that many pixels stay in the processor's caches
SCORES_AT_ONCE = 1 << 18  # of the unsettled regions at a time, which bounds memory when all classes compete everywhere
ROUNDING = 16 * np.finfo(np.float32).eps  # times the largest score: more than interpolation can round two scores apart
SIMILAR_COUNT = 0.7  # regions compete together if they have at least this share of the largest number of contenders


@dataclass(frozen=True)
class _Knots:
    """The scores, and what is interpolated for the winner, by knot: (knots * S,) float32 both; `columns` knots a row.

    `lone` (knots,) is the one class that can win at a knot, rounding errors included, -1 if there are several.
    """

    scores: np.ndarray
    values: np.ndarray
    lone: np.ndarray
    classes: int
    columns: int
    margin: np.float32


@dataclass(frozen=True)
class _Contenders:
    """The classes that may win in each of n regions: ascending, `count` of them from place `first` on, (n,) both."""

    classes: np.ndarray
    first: np.ndarray
    count: np.ndarray


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
    knots = _by_knot(scores, values if with_values else None)
    outputs = [np.empty((rows.size, columns.size), np.uint8)]
    if with_values:
        outputs.append(np.empty(outputs[0].shape, np.float32))
    width = sum(group.pixels.size for group in columns.groups)
    for band in _bands(rows, width):
        canvas = [np.empty((*band.pixels.shape, width), output.dtype) for output in outputs]
        start = 0
        for group in columns.groups:
            stop = start + group.pixels.size
            views = (plane[:, :, start:stop].reshape(*band.pixels.shape, *group.pixels.shape) for plane in canvas)
            _draw(knots, band, group, *views)
            start = stop
        places = band.pixels.reshape(-1)
        drawn = np.flatnonzero(places >= 0)
        for output, plane in zip(outputs, canvas):
            flat = plane.reshape(-1, width)
            ordered = flat[:, columns.order] if isinstance(columns.order, slice) else flat.take(columns.order, 1)
            output[places[drawn]] = ordered[drawn]
    return outputs[0], outputs[1] if with_values else None


def _by_knot(scores: np.ndarray, values: Optional[np.ndarray]) -> _Knots:
    by_class, by_knot = _both_orders(scores)
    margin = np.float32(max(ROUNDING * max(-by_class.min(), by_class.max()), np.finfo(np.float32).tiny))
    near = (by_class > by_class.max(0) - margin).view(np.uint8)
    lone = np.multiply(near, np.arange(len(near), dtype=np.uint8)[:, None]).max(0).astype(np.int64)
    lone[np.add.reduce(near, 0, dtype=np.uint8) != 1] = -1  # 256 near ones wrap to 0, which is not 1 either
    of_winner = by_knot if values is None else _both_orders(values)[1]
    return _Knots(by_knot, of_winner, lone, len(scores), scores.shape[2], margin)


def _both_orders(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (S, h, w) as (S, knots) and as (knots * S,), both contiguous; one of them is often there already."""
    flat = scores.reshape(len(scores), -1)
    if flat.T.flags.c_contiguous:
        return cv2.transpose(flat.T).reshape(flat.shape), flat.T.reshape(-1)
    flat = np.ascontiguousarray(flat)
    return flat, cv2.transpose(flat).reshape(-1)


def _bands(rows: InterpolationAxis, width: int) -> Iterator[IntervalGroup]:
    """Cut the groups into pieces whose pixels, `width` to a row, can be drawn at once."""
    for group in rows.groups:
        count = -(-group.pixels.size * width // CANVAS_PIXELS)
        step = -(-len(group.pixels) // count)
        for start in range(0, len(group.pixels), step):
            part = slice(start, start + step)
            yield IntervalGroup(group.low[part], group.high[part], group.weights[:, part], group.pixels[part])


def _draw(
    knots: _Knots, rows: IntervalGroup, columns: IntervalGroup, labels: np.ndarray, values: Optional[np.ndarray] = None
) -> None:
    """Draw the regions between `rows` and `columns` into labels and values (G rows, P rows, G columns, P columns).

    Until then regions stand last, (P rows, P columns, regions): long inner loops, however small a region is.
    """
    sides = product((rows.low, rows.high), (columns.low, columns.high))
    corners = [(row[:, None] * knots.columns + column).reshape(-1) for row, column in sides]
    row_of, column_of = (index.reshape(-1) for index in np.indices((len(rows.low), len(columns.low))))
    winner, *others = (knots.lone.take(corner) for corner in corners)
    settled = winner >= 0
    for other in others:
        settled &= other == winner
    at = [corner * knots.classes for corner in corners]
    weights = rows.weights.take(row_of, 1), columns.weights.take(column_of, 1)
    if values is not None:
        drawn = _interpolate(knots.values, [corner + np.maximum(winner, 0) for corner in at], *weights)
        values.transpose(1, 3, 0, 2)[...] = drawn.reshape(*drawn.shape[:2], len(rows.low), len(columns.low))
    across = np.repeat(winner.astype(np.uint8).reshape(len(rows.low), 1, -1), labels.shape[3], 2)  # then whole rows
    labels[...] = across.reshape(len(rows.low), 1, *labels.shape[2:])

    unsettled = np.flatnonzero(~settled)
    most = max(1, SCORES_AT_ONCE // knots.classes)
    for regions in (unsettled[start : start + most] for start in range(0, len(unsettled), most)):
        contenders = _contenders(knots, [corner[regions] for corner in corners])
        for alike in _similar(contenders.count, max(1, CANVAS_PIXELS // (len(rows.weights) * len(columns.weights)))):
            chosen = regions[alike]
            some = _Contenders(contenders.classes, contenders.first[alike], contenders.count[alike])
            local = [weight.take(chosen, 1) for weight in weights]
            best_labels, best_values = _compete(knots, some, [corner[chosen] for corner in at], *local)
            labels[row_of[chosen], :, column_of[chosen]] = best_labels.transpose(2, 0, 1)
            if values is not None:
                values[row_of[chosen], :, column_of[chosen]] = best_values.transpose(2, 0, 1)


def _contenders(knots: _Knots, corners: list[np.ndarray]) -> _Contenders:
    """Find the classes that the favourite, the one with the highest sum, does not rule out of each region."""
    size, regions = knots.classes, len(corners[0])
    by_corner = [knots.scores.reshape(-1, size).take(corner, 0) for corner in corners]  # (n, S) each
    total = by_corner[0] + by_corner[1]
    total += by_corner[2]
    total += by_corner[3]
    favourite = total.argmax(1)
    place = np.arange(regions) * size + favourite
    limits = [scores.take(place) for scores in by_corner]
    possible = np.zeros(total.shape, bool)
    for scores, limit in zip(by_corner, limits):
        possible |= scores > (limit - knots.margin)[:, None]
    possible.reshape(-1)[place] = True  # also where scores are not finite
    found = np.flatnonzero(possible)
    region = found // size
    classes = found - region * size
    keep = classes <= favourite.take(region)
    for scores, limit in zip(by_corner, limits):  # a later class that equals the favourite loses every tie
        keep |= scores.take(found) != limit.take(region)
    count = np.bincount(region[keep], minlength=regions)
    return _Contenders(classes[keep], np.cumsum(count) - count, count)


def _similar(count: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Yield up to `most` regions at a time that have about as many contenders."""
    order = np.argsort(-count, kind='stable')
    descending = -count[order]
    start = 0
    while start < len(order):
        stop = int(np.searchsorted(descending, SIMILAR_COUNT * descending[start], 'right'))
        stop = min(stop, start + most)
        yield order[start:stop]
        start = stop


def _compete(
    knots: _Knots, contenders: _Contenders, at: list[np.ndarray], row_weights: np.ndarray, column_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the winners' labels and values (P rows, P columns, n).

    A region that has no more contenders repeats its last one, which changes nothing.
    """
    classes = contenders.classes.take(contenders.first)
    best = _interpolate(knots.scores, [corner + classes for corner in at], row_weights, column_weights)
    labels = np.empty(best.shape, np.uint8)
    labels[...] = classes
    own_values = knots.values is not knots.scores
    values = best
    if own_values:
        values = _interpolate(knots.values, [corner + classes for corner in at], row_weights, column_weights)
    scores, better, label = np.empty_like(best), np.empty(best.shape, bool), np.empty_like(labels)
    for turn in range(1, contenders.count.max(initial=1)):
        classes = contenders.classes.take(contenders.first + np.minimum(turn, contenders.count - 1))
        places = [corner + classes for corner in at]
        _interpolate(knots.scores, places, row_weights, column_weights, out=scores)
        np.greater(scores, best, out=better)
        np.multiply(better.view(np.uint8), classes.astype(np.uint8), out=label)
        np.maximum(labels, label, out=labels)  # a later contender has the higher number: faster than a masked copy
        if own_values:
            np.copyto(values, _interpolate(knots.values, places, row_weights, column_weights), where=better)
        np.maximum(best, scores, out=best)
    return labels, values


def _interpolate(
    values: np.ndarray, corners: list[np.ndarray], row_weights: np.ndarray, column_weights: np.ndarray,
    out: Optional[np.ndarray] = None,
) -> np.ndarray:  # fmt: skip
    """Interpolate between four places of `values` per region; weights (P, n) each; returns (P rows, P columns, n)."""
    top_left, top_right, bottom_left, bottom_right = (values.take(corner) for corner in corners)
    left = (bottom_left - top_left) * row_weights
    left += top_left
    right = (bottom_right - top_right) * row_weights
    right += top_right
    right -= left
    out = np.multiply(right[:, None], column_weights, out=out)
    out += left[:, None]
    return out
