"""Shrink an image by averaging: what cv2.INTER_AREA gives, bit for bit, for half of the processor's time."""

from __future__ import annotations

import functools
from math import gcd
from typing import Optional

import cv2
import numpy as np

_LARGEST_STEP = 15
"""1920x1080 to 512x288 is 15 to 4. Further up the matrices have more zeros than saves time."""
_ROWS_AT_ONCE = 10
_ONE_THREAD = 1 << 18
"""Multiplications of a product that OpenBLAS leaves to the thread that asks: on a busy machine, waiting for its other
threads takes longer than the whole image."""


def shrink_by_area(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return `image` (H, W, 3) uint8 at `size_hw`: each pixel the mean of the area that it covers.

    OpenCV goes along each row pixel by pixel. Where the sizes are to one another as an odd number to a smaller one, as
    1280 to 512 is 5 to 2, small matrix products do it instead, first down the columns. Their sums are whole numbers,
    which float32 holds exactly; and the mean of an odd number of parts is never half-way between two grey levels, so
    that rounding errors, OpenCV's or that of the division, do not change what it is rounded to. Other sizes are left
    to OpenCV.
    """
    rows, columns = _step(image.shape[0], size_hw[0]), _step(image.shape[1], size_hw[1])
    if rows is None or columns is None:
        return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA)
    (tall, low), (wide, narrow) = rows, columns
    repeat = max(1, _ROWS_AT_ONCE // tall)
    down = _sums(rows, repeat if size_hw[0] % (repeat * low) == 0 else 1)
    across = np.ascontiguousarray(_sums(columns, 1, 3).T)
    shrunk = np.empty((*size_hw, 3), np.uint8)
    groups = image.shape[1] // wide
    step = max(1, _ONE_THREAD // (len(down) * len(across) * max(down.shape[1], across.shape[1])))
    for first in range(0, groups, step):
        last = min(first + step, groups)
        part, target = image[:, first * wide : last * wide], shrunk[:, first * narrow : last * narrow]
        _shrink(part, target, down, across, 1.0 / (tall * wide))
    return shrunk


def _shrink(image: np.ndarray, shrunk: np.ndarray, down: np.ndarray, across: np.ndarray, share: float) -> None:
    """Fill `shrunk` with `share` of the sums of `image`: a few rows at a time, which stay in the processor's cache."""
    low, tall = down.shape
    pixels = np.empty((tall, image.shape[1], 3), np.float32)
    column_sums = np.empty((low, image.shape[1] * 3), np.float32)
    sums = np.empty((column_sums.size // len(across), across.shape[1]), np.float32)
    for band in range(len(image) // tall):
        np.copyto(pixels, image[band * tall : (band + 1) * tall])
        np.matmul(down, pixels.reshape(tall, -1), out=column_sums)
        np.matmul(column_sums.reshape(-1, len(across)), across, out=sums)
        shrunk[band * low : (band + 1) * low] = cv2.convertScaleAbs(sums.reshape(low, -1, 3), alpha=share)


def _step(before: int, after: int) -> Optional[tuple[int, int]]:
    """Return the sizes in lowest terms; None where products do not pay, or the mean may lie half-way."""
    common = gcd(before, after)
    step = before // common, after // common
    return step if step[0] > step[1] > 1 and step[0] % 2 and step[0] <= _LARGEST_STEP else None


@functools.lru_cache(maxsize=16)
def _sums(step: tuple[int, int], repeat: int, channels: int = 1) -> np.ndarray:
    """Return a matrix float32 that sums `repeat` steps of pixels, with `channels` numbers each.

    Its weights are how many `after`-ths of a pixel before an output pixel covers.
    """
    before, after = step
    start, end = np.arange(after)[:, None] * before, np.arange(before) * after
    covered = np.minimum(start + before, end + after) - np.maximum(start, end)
    weights = np.clip(covered, 0, None).astype(np.float32)
    weights = np.kron(np.eye(repeat, dtype=np.float32), weights)
    return np.kron(weights, np.eye(channels, dtype=np.float32))
