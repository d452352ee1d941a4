"""What goes into a TensorRT engine and comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybrid_seg_ros.inference.backends.graph_info import GraphError

DTYPES = {
    'FLOAT': np.dtype(np.float32), 'HALF': np.dtype(np.float16), 'INT32': np.dtype(np.int32),
    'INT8': np.dtype(np.int8), 'UINT8': np.dtype(np.uint8), 'BOOL': np.dtype(np.bool_), 'INT64': np.dtype(np.int64),
}  # fmt: skip


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that goes into an engine or comes out of it; `largest` is its shape at its longest."""

    name: str
    dtype: np.dtype
    largest: tuple[int, ...]
    is_input: bool
    is_dynamic: bool

    def num_bytes(self, shape: Sequence[int]) -> int:
        """Return the size of such a tensor of some shape."""
        return int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize


def read_tensors(engine: Any, context: Any, name: str) -> dict[str, TensorSpec]:
    """List an engine's inputs and outputs, inputs first."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [each for each in names if engine.get_tensor_mode(each).name == 'INPUT']
    found = {}
    for each in inputs + [each for each in names if each not in inputs]:
        dtype = DTYPES.get(engine.get_tensor_dtype(each).name)
        if dtype is None:
            raise GraphError(f'{name}: {each} has type {engine.get_tensor_dtype(each)}; expected {", ".join(DTYPES)}')
        shape = tuple(engine.get_tensor_shape(each))
        is_dynamic = min(shape, default=0) < 0
        if is_dynamic and each in inputs:
            shape = tuple(engine.get_tensor_profile_shape(each, 0)[2])
            context.set_input_shape(each, shape)
        elif is_dynamic:  # follows from the inputs, all of which are at their longest by now
            shape = tuple(context.get_tensor_shape(each))
        found[each] = TensorSpec(each, dtype, shape, each in inputs, is_dynamic)
    return found
