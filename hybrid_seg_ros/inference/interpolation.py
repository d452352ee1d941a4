"""Bilinear interpolation along one axis, between knots that need not be equally spaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple, Optional, Union

import numpy as np

MAX_GROUPS = 3
GROUP_COST = 0.15  # of the axis' pixels: drawing one more group costs about as much as that much padding


class Neighbours(NamedTuple):
    """Between which knots positions (n,) lie, and how far from `low` to `high`: `weight` (n,) float32 in [0, 1]."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class IntervalGroup:
    """G intervals between neighbouring knots, each with up to P output pixels.

    `low` and `high` (G,) are the knots at an interval's ends: the same one twice where pixels lie outside all knots.
    `weights` (P, G) float32 is how far each pixel is from `low` to `high`; `pixels` (G, P) says which output pixel it
    is, -1 for padding.
    """

    low: np.ndarray
    high: np.ndarray
    weights: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True)
class InterpolationAxis:
    """Where `size` output pixels lie between knots. `order` takes them out of the groups' pixels, put end to end."""

    groups: tuple[IntervalGroup, ...]
    order: Union[slice, np.ndarray]
    size: int


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


@lru_cache(maxsize=256)
def interpolation_axis(
    knots_px: tuple[float, ...], content: int, output: int, start: int = 0, stop: Optional[int] = None
) -> InterpolationAxis:
    """Return where `output` pixels, resized from `content` pixels, lie between knots at `knots_px` of these.

    Pixels outside all knots take the value of the nearest one. `start` and `stop` choose some of the output's pixels.
    """
    low, high, weight = neighbours(knots_px, pixel_positions(output, content)[start:stop])
    starts = np.flatnonzero(np.diff(low, prepend=-1) + np.diff(high, prepend=-1))
    counts = np.diff(starts, append=len(low))
    limits = _group_limits(counts)
    groups = []
    for members in (np.flatnonzero(np.searchsorted(limits, counts) == group) for group in range(len(limits))):
        pixels = starts[members, None] + np.arange(counts[members].max())  # (G, P)
        if members[0] == 0:  # the first pixels stand last in their interval, next to those of the second one
            pixels[0] += counts[0] - pixels.shape[1]
        first = starts[members, None]
        pixels[(pixels < first) | (pixels >= first + counts[members, None])] = -1
        weights = np.where(pixels >= 0, weight[pixels], np.float32(0))
        ends = starts[members]
        groups.append(IntervalGroup(low[ends], high[ends], np.ascontiguousarray(weights.T), pixels))
    places = np.concatenate([group.pixels.reshape(-1) for group in groups])
    order = np.empty(len(low), np.int64)
    order[places[places >= 0]] = np.flatnonzero(places >= 0)
    contiguous = bool(np.all(np.diff(order) == 1))
    return InterpolationAxis(tuple(groups), slice(int(order[0]), int(order[-1]) + 1) if contiguous else order, len(low))


def interpolation_matrix(knots_px: Sequence[float], positions_px: np.ndarray) -> np.ndarray:
    """Return (positions, knots) float32 that interpolates values at the knots; clamped outside all knots."""
    low, high, weight = neighbours(knots_px, positions_px)
    matrix = np.zeros((len(low), len(knots_px)), np.float32)
    each = np.arange(len(low))
    matrix[each, low] = 1 - weight
    matrix[each, high] += weight
    return matrix


def _group_limits(counts: np.ndarray) -> np.ndarray:
    """Return the pixels that each group's intervals are padded to, ascending, such that little of it is padding."""
    sizes = np.unique(counts)
    choices = (
        np.array([*smaller, sizes[-1]])
        for groups in range(min(MAX_GROUPS, len(sizes)))
        for smaller in combinations(sizes[:-1], groups)
    )
    return min(
        choices,
        key=lambda limits: limits[np.searchsorted(limits, counts)].sum() + GROUP_COST * counts.sum() * len(limits),
    )
