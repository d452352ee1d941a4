"""Shrink an image by averaging: what cv2.INTER_AREA gives, bit for bit, for half of the processor's time."""

from __future__ import annotations

import functools
from math import gcd
from typing import Optional

import cv2
import numpy as np

_LARGEST_STEP = 15
"""1920x1080 to 512x288 is 15 to 4. Further up there are more parts than pixels."""
_VALUES_AT_ONCE = 1 << 18
"""Of the sums of columns: a megabyte, which stays in the processor's cache."""
_ONE_THREAD = 1 << 18
"""Multiplications of a product that OpenBLAS leaves to the thread that asks: on a busy machine, waiting for its other
threads takes longer than the whole image."""


def shrink_by_area(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return `image` (H, W, 3) uint8 at `size_hw`: each pixel the mean of the area that it covers.

    OpenCV goes along each row pixel by pixel. Where the sizes are to one another as an odd number to a smaller one, as
    1280 to 512 is 5 to 2, whole rows are added up first, and what is left goes through a small matrix product. All sums
    are whole numbers, which float32 holds exactly; and the mean of an odd number of parts is never half-way between
    two grey levels, so that rounding errors, OpenCV's or that of the division, do not change what it is rounded to.
    Other sizes are left to OpenCV.
    """
    rows, columns = _step(image.shape[0], size_hw[0]), _step(image.shape[1], size_hw[1])
    if rows is None or columns is None:
        return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA)
    bands = image.reshape(-1, rows[0], image.shape[1] * 3)
    shrunk = np.empty((len(bands), rows[1], size_hw[1] * 3), np.uint8)
    at_once = max(1, _VALUES_AT_ONCE // (rows[1] * bands.shape[2]))
    column_sums = np.empty((min(at_once, len(bands)), rows[1], bands.shape[2]), np.float32)
    share = 1.0 / (rows[0] * columns[0])
    for first in range(0, len(bands), at_once):
        part = bands[first : first + at_once]
        sums = column_sums[: len(part)]
        _add_rows(part, _parts(rows), sums)
        sums = _add_columns(sums, _per_pixel(columns))
        shrunk[first : first + at_once] = cv2.convertScaleAbs(sums, alpha=share).reshape(len(part), rows[1], -1)
    return shrunk.reshape(*size_hw, 3)


def _add_rows(bands: np.ndarray, parts: np.ndarray, sums: np.ndarray) -> None:
    """Fill sums (n, after, width) float32 with the rows of bands (n, before, width), each as often as `parts` says."""
    whole = int(parts.max())
    sums[:] = 0
    for row, row_parts in enumerate(parts.astype(int)):
        total = sums[:, row]
        for index in np.flatnonzero(row_parts == whole):
            cv2.accumulate(bands[:, index], total)
        total *= whole
        for index in np.flatnonzero(row_parts < whole):
            for _ in range(row_parts[index]):
                cv2.accumulate(bands[:, index], total)


def _add_columns(sums: np.ndarray, per_pixel: np.ndarray) -> np.ndarray:
    """Return (groups, 3 * after) float32, the sums over each group of 3 * before values."""
    groups = sums.reshape(-1, len(per_pixel))
    added = np.empty((len(groups), per_pixel.shape[1]), np.float32)
    at_once = max(1, _ONE_THREAD // per_pixel.size)
    for first in range(0, len(groups), at_once):
        part = slice(first, first + at_once)
        np.matmul(groups[part], per_pixel, out=added[part])
    return added


def _step(before: int, after: int) -> Optional[tuple[int, int]]:
    """Return the sizes in lowest terms; None where adding does not pay, or the mean may lie half-way."""
    common = gcd(before, after)
    step = before // common, after // common
    return step if step[0] > step[1] > 1 and step[0] % 2 and step[0] <= _LARGEST_STEP else None


@functools.lru_cache(maxsize=8)
def _parts(step: tuple[int, int]) -> np.ndarray:
    """Return (after, before) float32: into `after` parts a pixel is cut; how many of them an output pixel covers."""
    before, after = step
    start, end = np.arange(after)[:, None] * before, np.arange(before) * after
    return np.clip(np.minimum(start + before, end + after) - np.maximum(start, end), 0, None).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _per_pixel(step: tuple[int, int]) -> np.ndarray:
    """Return (3 * before, 3 * after) float32, the same for pixels of three values each."""
    return np.ascontiguousarray(np.kron(_parts(step), np.eye(3, dtype=np.float32)).T)
