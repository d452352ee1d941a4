"""Class scores that stay on the GPU, and become a label map there: classes x height x width never exists."""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np

from hybrid_seg_ros.inference.backends.tensorrt.cuda import INSTALL, Gpu, Kernel, MirroredArray, PinnedArray, Stream

KERNEL_FILE = Path(__file__).with_name('label_map.cu')
COMPILER_OPTIONS = (b'--fmad=false',)
"""Rounds as the CPU does."""
MAX_SIZES = 4
"""Output sizes whose buffers are kept."""
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

    def __getitem__(self, index: int) -> 'DeviceScores':
        """Return the scores of one image of a batch."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(f'expected an index below {self.shape[0]}, got {index}')
        address = self._address + index * _num_bytes(self.shape[1:])
        return DeviceScores(self._keeper, self._lease, address, self.shape[1:])

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        if copy is False:
            raise ValueError('scores on a GPU cannot become a NumPy array without a copy')
        scores = self._keeper.fetch(self._address, self.shape)
        return scores if dtype is None else scores.astype(dtype, copy=False)

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
        self._canvases: OrderedDict[tuple[int, int], _Canvas] = OrderedDict()
        self._staging: dict[tuple[int, ...], PinnedArray] = {}
        self._closed = False

    def keep(self, stream: Stream, address: int, shape: tuple[int, ...]) -> DeviceScores:
        """Return a copy of the scores at `address`, there once the work that is on `stream` by now is done."""
        num_bytes = _num_bytes(shape)
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
            size_hw = (len(rows[0]), len(columns[0]))
            if size_hw not in self._canvases:
                while len(self._canvases) >= MAX_SIZES:
                    self._canvases.popitem(last=False)[1].close()
                self._canvases[size_hw] = _Canvas(self._gpu, size_hw)
            self._canvases.move_to_end(size_hw)
            return self._canvases[size_hw].paint(self._kernel, self._stream, address, shape, rows, columns)

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


class _Lease:
    """A buffer in use; it becomes idle once nobody refers to it any more."""

    def __init__(self, buffer: int, idle: list[int]) -> None:
        self._buffer, self._idle = buffer, idle

    def __del__(self) -> None:
        self._idle.append(self._buffer)


class _Canvas:
    """Label map and confidence of one size, on the GPU and on the host."""

    def __init__(self, gpu: Gpu, size_hw: tuple[int, int]) -> None:
        self._size_hw = size_hw
        self._labels = MirroredArray(gpu, size_hw, _UINT8)
        self._confidence = MirroredArray(gpu, size_hw, _FLOAT32)
        self._sampling = tuple(MirroredArray(gpu, (side,), dtype) for side in size_hw for dtype in (_INT32, _FLOAT32))
        self._sampled = False

    def paint(
        self, kernel: Kernel, stream: Stream, scores: int, shape: tuple[int, ...], rows: AxisSampling,
        columns: AxisSampling,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return the labels and confidence of the scores (S, h, w) at an address. Waits for the GPU."""
        classes, grid_rows, grid_columns = shape
        height, width = self._size_hw
        check_sampling('rows', rows, height, grid_rows)
        check_sampling('columns', columns, width, grid_columns)
        for target, array in zip(self._sampling, (*rows, *columns)):
            if not self._sampled or not np.array_equal(target.array, array):  # else it is there from the frame before
                np.copyto(target.array, array, casting='same_kind')
                target.upload(stream)
        self._sampled = True
        top, below, left, right = (array.device for array in self._sampling)
        grid = (-(-width // BLOCK[0]), -(-height // BLOCK[1]))
        values = (scores, classes, grid_rows, grid_columns, top, below, height, left, right, width,
                  self._labels.device, self._confidence.device)  # fmt: skip
        kernel.launch(stream, grid, BLOCK, values, _ARGUMENTS)
        self._labels.fetch(stream)
        self._confidence.fetch(stream)
        stream.synchronize()
        return self._labels.array.copy(), self._confidence.array.copy()

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


def _num_bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * _FLOAT32.itemsize


class KernelError(RuntimeError):
    """A kernel that cannot be compiled here."""


def compile_kernel(path: Path, compute_capability: int) -> bytes:
    """Compile CUDA C at run time (NVRTC), which needs no GPU itself.

    Returns the file `path` as machine code for a GPU, 87 for 8.7, or for a newer one than NVRTC knows as PTX. Raises
    KernelError with the compiler's log, or where there is no NVRTC.
    """
    try:
        from cuda.bindings import nvrtc

        architectures = _call(nvrtc, nvrtc.nvrtcGetSupportedArchs)
    except (ImportError, OSError, RuntimeError) as error:
        raise KernelError(f'no NVRTC to compile {path.name} with ({error}); it comes with CUDA, or by '
                          f'pip install nvidia-cuda-nvrtc, for CUDA 12 nvidia-cuda-nvrtc-cu12; '
                          f'cuda-bindings: {INSTALL}') from error  # fmt: skip
    known = compute_capability in architectures
    older = [each for each in architectures if each < compute_capability]
    if not known and not older:
        raise KernelError(f'{path.name}: this NVRTC compiles for {list(architectures)}, not for {compute_capability}')
    target = f'sm_{compute_capability}' if known else f'compute_{max(older)}'
    program = _call(nvrtc, nvrtc.nvrtcCreateProgram, path.read_bytes(), path.name.encode(), 0, [], [])
    options = [f'--gpu-architecture={target}'.encode(), *COMPILER_OPTIONS]
    try:
        _call(nvrtc, nvrtc.nvrtcCompileProgram, program, len(options), options)
    except KernelError as error:
        messages = _text(nvrtc, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        raise KernelError(f'{path.name}: {error}: {messages.decode()}') from error
    if known:
        return _text(nvrtc, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    return _text(nvrtc, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)


def _text(nvrtc: Any, size_of: Callable[..., Any], write: Callable[..., Any], program: Any) -> bytes:
    buffer = b' ' * _call(nvrtc, size_of, program)
    _call(nvrtc, write, program, buffer)  # writes into the bytes object, which is how cuda-bindings has it
    return buffer


def _call(nvrtc: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    status, *values = function(*arguments)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise KernelError(f'{function.__name__}: {nvrtc.nvrtcGetErrorString(status)[1].decode()}')
    return values[-1] if values else None
