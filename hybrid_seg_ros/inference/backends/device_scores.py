"""Class scores that stay on the GPU, and become a label map there: classes x height x width never exists."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Optional

import numpy as np

from hybrid_seg_ros.inference.backends.cuda_arrays import PinnedArray
from hybrid_seg_ros.inference.backends.cuda_device import Gpu, Stream
from hybrid_seg_ros.inference.backends.kernel_compiler import compile_kernel
from hybrid_seg_ros.inference.backends.label_canvas import AxisSampling, LabelCanvas

KERNEL_FILE = Path(__file__).with_name('label_map.cu')
MAX_SIZES = 4
"""Output sizes whose buffers are kept."""

_FLOAT32 = np.dtype(np.float32)


class DeviceScores:
    """Scores (S, h, w), or (B, S, h, w) of a batch, float32, on a GPU; `numpy.asarray` fetches them.

    They stay what they are, whatever is segmented next, until the backend is closed.
    """

    dtype = _FLOAT32

    def __init__(self, keeper: 'ScoreKeeper', lease: '_Lease', address: int, shape: tuple[int, ...]) -> None:
        self._keeper, self._lease, self._address = keeper, lease, address
        self.shape = shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __getitem__(self, index: int) -> 'DeviceScores':
        """Return the scores of one image of a batch."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(f'expected an index below {self.shape[0]}, got {index}')
        part = DeviceScores(self._keeper, self._lease, self._address, self.shape[1:])
        part._address += index * part.num_bytes
        return part

    def to_host(self) -> np.ndarray:
        """Fetch them."""
        return self._keeper.fetch(self._address, self.shape)

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        if copy is False:
            raise ValueError('scores on a GPU cannot become a NumPy array without a copy')
        return self.to_host() if dtype is None else self.to_host().astype(dtype, copy=False)

    def label_map(self, rows: AxisSampling, columns: AxisSampling) -> tuple[np.ndarray, np.ndarray]:
        """Return the class of the highest score, (H, W) uint8, and that score clipped to [0, 1], (H, W) float32.

        Each output pixel interpolates its four cells bilinearly, as `rows` and `columns` say.
        """
        if self.ndim != 3:
            raise ValueError(f'label_map: expected the scores of one image (S, h, w), got shape {self.shape}')
        return self._keeper.label_map(self._address, self.shape, rows, columns)


class ScoreKeeper:
    """Keeps scores on a GPU, and finishes them on a stream of its own, beside the next frame. Any thread may call it.

    Raises KernelError where the kernel cannot be compiled.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._kernel = gpu.load_kernel(compile_kernel(KERNEL_FILE, gpu.model.compute_capability), 'label_map')
        self._stream = gpu.new_stream()
        self._lock = threading.Lock()
        self._buffers: list[int] = []
        self._idle: dict[int, list[int]] = {}
        self._canvases: OrderedDict[tuple[int, int], LabelCanvas] = OrderedDict()
        self._staging: dict[tuple[int, ...], PinnedArray] = {}
        self._closed = False

    def keep(self, stream: Stream, address: int, shape: tuple[int, ...]) -> DeviceScores:
        """Return a copy of the scores at `address`, there once the work that is on `stream` by now is done."""
        num_bytes = int(np.prod(shape, dtype=np.int64)) * _FLOAT32.itemsize
        idle = self._idle.setdefault(num_bytes, [])
        if idle:
            buffer = idle.pop()
        else:
            buffer = self._gpu.allocate(num_bytes)
            self._buffers.append(buffer)
        stream.copy(buffer, address, num_bytes)
        return DeviceScores(self, _Lease(buffer, idle), buffer, shape)

    def fetch(self, address: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return scores as a NumPy array."""
        with self._lock:
            self._begin()
            if shape not in self._staging:
                self._staging[shape] = self._gpu.allocate_pinned(shape, _FLOAT32)
            pinned = self._staging[shape]
            self._stream.fetch(pinned.address, address, pinned.array.nbytes)
            self._stream.synchronize()
            return pinned.array.copy()

    def label_map(
        self, address: int, shape: tuple[int, ...], rows: AxisSampling, columns: AxisSampling
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return labels and confidence, as DeviceScores.label_map."""
        with self._lock:
            self._begin()
            canvas = self._canvas((len(rows[0]), len(columns[0])))
            return canvas.paint(self._kernel, self._stream, address, shape, rows, columns)

    def close(self) -> None:
        """Free all scores; those still held then raise RuntimeError."""
        with self._lock:
            self._closed = True
            self._stream.close()
            self._kernel.close()
            while self._canvases:
                self._canvases.popitem()[1].close()
            while self._staging:
                self._gpu.free_pinned(self._staging.popitem()[1])
            while self._buffers:
                self._gpu.free(self._buffers.pop())

    def _begin(self) -> None:
        if self._closed:
            raise RuntimeError('the backend is closed, and with it its scores')
        self._gpu.use()

    def _canvas(self, size_hw: tuple[int, int]) -> LabelCanvas:
        if size_hw not in self._canvases:
            while len(self._canvases) >= MAX_SIZES:
                self._canvases.popitem(last=False)[1].close()
            self._canvases[size_hw] = LabelCanvas(self._gpu, size_hw)
        self._canvases.move_to_end(size_hw)
        return self._canvases[size_hw]


class _Lease:
    """A buffer in use; it becomes idle once nobody refers to it any more."""

    def __init__(self, buffer: int, idle: list[int]) -> None:
        self._buffer, self._idle = buffer, idle

    def __del__(self) -> None:
        self._idle.append(self._buffer)
