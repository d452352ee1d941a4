"""The kernel that makes a label map of scores on a grid, and the buffers that it writes into."""

from __future__ import annotations

import ctypes

import numpy as np

from hybrid_seg_ros.inference.backends.cuda_arrays import MirroredArray
from hybrid_seg_ros.inference.backends.cuda_device import Gpu, Kernel, Stream

BLOCK = (32, 8)
"""Threads of a block, along x and y: a warp lies in one row, where neighbours read the same cells."""

AxisSampling = tuple[np.ndarray, np.ndarray]
"""For each output row (or column): the row of cells at or above it, int32, and the weight of the next, float32."""

_FLOAT32, _UINT8, _INT32 = np.dtype(np.float32), np.dtype(np.uint8), np.dtype(np.int32)
_ARGUMENTS = (
    *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int),  # scores
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),  # rows
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),  # columns
    *(ctypes.c_void_p, ctypes.c_void_p),  # labels and confidence
)


class LabelCanvas:
    """Label map and confidence of one size, on the GPU and on the host."""

    def __init__(self, gpu: Gpu, size_hw: tuple[int, int]) -> None:
        self._size_hw = size_hw
        self._labels = MirroredArray(gpu, size_hw, _UINT8)
        self._confidence = MirroredArray(gpu, size_hw, _FLOAT32)
        self._sampling = tuple(
            MirroredArray(gpu, (side,), dtype) for side in size_hw for dtype in (_INT32, _FLOAT32)
        )  # fmt: skip
        self._sampled = False

    def paint(
        self, kernel: Kernel, stream: Stream, scores: int, shape: tuple[int, ...], rows: AxisSampling,
        columns: AxisSampling,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return the labels and confidence of the scores (S, h, w) at an address. Waits for the GPU."""
        classes, grid_rows, grid_columns = shape
        check_sampling('rows', rows, self._size_hw[0], grid_rows)
        check_sampling('columns', columns, self._size_hw[1], grid_columns)
        self._sample(stream, (*rows, *columns))
        top, below, left, right = (array.device for array in self._sampling)
        height, width = self._size_hw
        grid = (-(-width // BLOCK[0]), -(-height // BLOCK[1]))
        values = (scores, classes, grid_rows, grid_columns, top, below, height, left, right, width,
                  self._labels.device, self._confidence.device)  # fmt: skip
        kernel.launch(stream, grid, BLOCK, values, _ARGUMENTS)
        self._labels.fetch(stream)
        self._confidence.fetch(stream)
        stream.synchronize()
        return self._labels.array.copy(), self._confidence.array.copy()

    def _sample(self, stream: Stream, wanted: tuple[np.ndarray, ...]) -> None:
        """Upload how rows and columns lie between the cells, unless it is there from the frame before."""
        for target, array in zip(self._sampling, wanted):
            if not self._sampled or not np.array_equal(target.array, array):
                np.copyto(target.array, array, casting='same_kind')
                target.upload(stream)
        self._sampled = True

    def close(self) -> None:
        """Free the buffers."""
        for array in (self._labels, self._confidence, *self._sampling):
            array.close()


def check_sampling(axis: str, sampling: AxisSampling, length: int, cells: int) -> None:
    """Raise ValueError for what would make the GPU read elsewhere."""
    low, weight = sampling
    if low.shape != (length,) or weight.shape != (length,):
        raise ValueError(f'{axis}: expected low and weight of shape ({length},), got {low.shape} and {weight.shape}')
    if length and not 0 <= low.min() <= low.max() < cells:
        raise ValueError(f'{axis}: expected cells in 0 .. {cells - 1}, got {low.min()} .. {low.max()}')
