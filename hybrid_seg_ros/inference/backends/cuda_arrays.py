"""Arrays in the memory that a GPU shares with its host: copies go on while the host works."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np

if TYPE_CHECKING:
    from hybrid_seg_ros.inference.backends.cuda_device import Gpu, Stream


class PinnedArray:
    """A NumPy array, `array`, in pinned memory at `address`."""

    def __init__(self, address: int, shape: Sequence[int], dtype: np.dtype) -> None:
        self.address = address
        count = int(np.prod(shape, dtype=np.int64))
        memory = (ctypes.c_uint8 * max(count * dtype.itemsize, 1)).from_address(address)
        self.array = np.frombuffer(memory, dtype, count).reshape(tuple(shape))


class MirroredArray:
    """Memory on the GPU, at the address `device`, and an array like it in pinned memory from when it is first used."""

    def __init__(self, gpu: 'Gpu', shape: Sequence[int], dtype: np.dtype) -> None:
        self._gpu, self._shape, self._dtype = gpu, tuple(shape), dtype
        self._num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._pinned: Optional[PinnedArray] = None
        self.device = gpu.allocate(self._num_bytes)

    @property
    def array(self) -> np.ndarray:
        """What is uploaded, or has been fetched."""
        return self._on_host().array

    def upload(self, stream: 'Stream', num_bytes: Optional[int] = None) -> None:
        """Queue a copy to the GPU, of the first `num_bytes` or of all."""
        stream.upload(self.device, self._on_host().address, self._num_bytes if num_bytes is None else num_bytes)

    def fetch(self, stream: 'Stream', num_bytes: Optional[int] = None) -> None:
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
