"""CUDA through the driver's own interface; the only file that calls it, and every call is checked.

Addresses are plain ints. All names are the same in cuda-bindings 12 and 13.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

log = logging.getLogger(__name__)

INSTALL = 'pip install "cuda-bindings>=12.6,<14" (12 for a driver of CUDA 12, as in JetPack 6)'


class CudaError(RuntimeError):
    """A call of CUDA failed."""


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that this process may use; asks the driver, without cuda-bindings."""
    try:
        driver = ctypes.CDLL('libcuda.so.1')
    except OSError:
        return 0
    count = ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


@dataclass(frozen=True)
class GpuModel:
    """A kind of GPU: its name, and its compute capability, 87 for 8.7."""

    name: str
    compute_capability: int


class PinnedArray:
    """A NumPy array, `array`, in pinned memory at `address`."""

    def __init__(self, address: int, shape: Sequence[int], dtype: np.dtype) -> None:
        self.address = address
        count = int(np.prod(shape, dtype=np.int64))
        memory = (ctypes.c_uint8 * max(count * dtype.itemsize, 1)).from_address(address)
        self.array = np.frombuffer(memory, dtype, count).reshape(tuple(shape))


class Gpu:
    """One GPU: its memory, streams and kernels. May be used from any thread that has called `use`."""

    def __init__(self, index: int = 0) -> None:
        """Raise ModuleNotFoundError where cuda-bindings is missing, ValueError where there is no such GPU."""
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise ModuleNotFoundError(f'CUDA needs cuda-bindings ({error}); {INSTALL}') from error
        self._driver = driver
        try:
            self._call(driver.cuInit, 0)
            count = self._call(driver.cuDeviceGetCount)
        except (RuntimeError, ImportError, OSError) as error:  # what it raises without a driver differs by version
            raise ValueError(f"device 'cuda': no NVIDIA GPU, or no driver for one, is here ({error})") from error
        if index >= count:
            raise ValueError(f"device 'cuda:{index}': expected an index below {count}, the number of GPUs")
        device = self._call(driver.cuDeviceGet, index)
        attribute = driver.CUdevice_attribute
        major, minor = (self._call(driver.cuDeviceGetAttribute, which, device) for which in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR))  # fmt: skip
        name = self._call(driver.cuDeviceGetName, 256, device).split(b'\0')[0].decode()
        self.model = GpuModel(name, 10 * major + minor)
        self._device = device
        self._context = self._call(driver.cuDevicePrimaryCtxRetain, device)
        self.use()

    def use(self) -> None:
        """Make the GPU the one that this thread works with."""
        self._call(self._driver.cuCtxSetCurrent, self._context)

    def allocate(self, num_bytes: int) -> int:
        """Return the address of new memory on the GPU."""
        return int(self._call(self._driver.cuMemAlloc, max(num_bytes, 1)))

    def free(self, address: int) -> None:
        """Give memory of `allocate` back."""
        self._call(self._driver.cuMemFree, address)

    def allocate_pinned(self, shape: Sequence[int], dtype: np.dtype) -> PinnedArray:
        """Return host memory that the GPU copies from and to while the host goes on."""
        num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        address = int(self._call(self._driver.cuMemHostAlloc, max(num_bytes, 1), 0))
        return PinnedArray(address, shape, dtype)

    def free_pinned(self, pinned: PinnedArray) -> None:
        """Give memory of `allocate_pinned` back; its array must not be used any more."""
        self._call(self._driver.cuMemFreeHost, pinned.address)

    def new_stream(self) -> 'Stream':
        """Return a queue of work that waits for no other."""
        return Stream(self)

    def load_kernel(self, image: bytes, name: str) -> 'Kernel':
        """Load the function `name` of a compiled module (cubin or PTX)."""
        module = self._call(self._driver.cuModuleLoadData, image)
        return Kernel(self, module, self._call(self._driver.cuModuleGetFunction, module, name.encode()))

    def close(self) -> None:
        """Let the GPU go; everything made of it must have been given back before."""
        if self._context is not None:
            self._call(self._driver.cuDevicePrimaryCtxRelease, self._device)
            self._context = None

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call CUDA and return what it returns besides its status. Raises CudaError."""
        status, *values = function(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            _, text = self._driver.cuGetErrorString(status)
            what = '' if text is None else f', {text.decode()}'
            raise CudaError(f'{function.__name__}: {getattr(status, "name", status)}{what}')
        return values[0] if values else None


class Stream:
    """Work that a GPU does in order, while the host goes on. One thread at a time may add to it."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._driver, self._call = gpu, gpu._driver, gpu._call
        self._stream = self._call(self._driver.cuStreamCreate, self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self.handle = int(self._stream)

    def upload(self, address: int, host_address: int, num_bytes: int) -> None:
        """Copy pinned memory to the GPU."""
        self._call(self._driver.cuMemcpyHtoDAsync, address, host_address, num_bytes, self._stream)

    def fetch(self, host_address: int, address: int, num_bytes: int) -> None:
        """Copy from the GPU to pinned memory."""
        self._call(self._driver.cuMemcpyDtoHAsync, host_address, address, num_bytes, self._stream)

    def copy(self, address: int, source: int, num_bytes: int) -> None:
        """Copy on the GPU."""
        self._call(self._driver.cuMemcpyDtoDAsync, address, source, num_bytes, self._stream)

    def synchronize(self) -> None:
        """Block until all work is done."""
        self._call(self._driver.cuStreamSynchronize, self._stream)

    def capture(self, enqueue: Callable[[], bool]) -> Optional[Any]:
        """Return as a CUDA graph, for `replay`, what `enqueue` puts on this stream; it is not run.

        None, and a line in the log, where it cannot be captured.
        """
        driver = self._driver
        try:
            self._call(driver.cuStreamBeginCapture, self._stream,
                       driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)  # fmt: skip
            try:
                accepted = enqueue()
            finally:
                graph = self._call(driver.cuStreamEndCapture, self._stream)
            try:
                return self._call(driver.cuGraphInstantiate, graph, 0) if accepted else None
            finally:
                self._call(driver.cuGraphDestroy, graph)
        except CudaError as error:
            log.warning('no CUDA graph, each launch goes through the host instead: %s', error)
            return None

    def replay(self, graph: Any) -> None:
        """Queue the work of a captured graph."""
        self._call(self._driver.cuGraphLaunch, graph, self._stream)

    def free_graph(self, graph: Any) -> None:
        """Give a captured graph back."""
        self._call(self._driver.cuGraphExecDestroy, graph)

    def close(self) -> None:
        """Finish the work and give the stream back."""
        self.synchronize()
        self._call(self._driver.cuStreamDestroy, self._stream)


class Kernel:
    """A function that runs on the GPU."""

    def __init__(self, gpu: Gpu, module: Any, function: Any) -> None:
        self._gpu, self._module, self._function = gpu, module, function

    def launch(
        self, stream: Stream, grid: tuple[int, int], block: tuple[int, int], values: tuple[Any, ...],
        types: tuple[Any, ...],
    ) -> None:  # fmt: skip
        """Queue it for `grid` blocks of `block` threads (x, y); arguments are `values` of the ctypes `types`."""
        self._gpu._call(self._gpu._driver.cuLaunchKernel, self._function, *grid, 1, *block, 1, 0, stream._stream,
                        (values, types), 0)  # fmt: skip

    def close(self) -> None:
        """Unload it."""
        self._gpu._call(self._gpu._driver.cuModuleUnload, self._module)


class MirroredArray:
    """Memory on the GPU, at the address `device`, and an array like it in pinned memory from when it is first used."""

    def __init__(self, gpu: Gpu, shape: Sequence[int], dtype: np.dtype) -> None:
        self._gpu, self._shape, self._dtype = gpu, tuple(shape), dtype
        self._num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._pinned: Optional[PinnedArray] = None
        self.device = gpu.allocate(self._num_bytes)

    @property
    def array(self) -> np.ndarray:
        """What is uploaded, or has been fetched."""
        return self._on_host().array

    def upload(self, stream: Stream, num_bytes: Optional[int] = None) -> None:
        """Queue a copy to the GPU, of the first `num_bytes` or of all."""
        stream.upload(self.device, self._on_host().address, self._num_bytes if num_bytes is None else num_bytes)

    def fetch(self, stream: Stream, num_bytes: Optional[int] = None) -> None:
        """Queue a copy to the host, of the first `num_bytes` or of all."""
        stream.fetch(self._on_host().address, self.device, self._num_bytes if num_bytes is None else num_bytes)

    def close(self) -> None:
        """Free both."""
        self._gpu.free(self.device)
        if self._pinned is not None:
            self._gpu.free_pinned(self._pinned)
            self._pinned = None

    def _on_host(self) -> PinnedArray:
        if self._pinned is None:
            self._pinned = self._gpu.allocate_pinned(self._shape, self._dtype)
        return self._pinned
