"""One TensorRT engine at work: buffers made once, CUDA graphs for fixed shapes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from hybrid_seg_ros.inference.backends.graph_info import GraphError
from hybrid_seg_ros.inference.backends.tensorrt.cuda import CudaError, Gpu, MirroredArray, Stream
from hybrid_seg_ros.inference.backends.tensorrt.label_map import ScoreKeeper

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Queues:
    """Where a backend's work goes, copies included, and what finishes scores on the GPU if it can."""

    gpu: Gpu
    compute: Stream
    keeper: Optional[ScoreKeeper]


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor on the GPU, good until the engine that gave it runs again."""

    address: int
    shape: tuple[int, ...]


class TensorRtRunner:
    """Runs an engine, as the Runner protocol says; one thread at a time."""

    def __init__(self, engine: Any, queues: Queues, name: str) -> None:
        self._name, self._queues = name, queues
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise GraphError(f'{name}: TensorRT cannot run it; is the memory of the GPU full?')
        self._tensors = read_tensors(engine, self._context, name)
        self.input_names = tuple(name for name, tensor in self._tensors.items() if tensor.is_input)
        self.keeps_scores = queues.keeper is not None and 'scores' in self._tensors
        self._static = not any(tensor.is_dynamic for tensor in self._tensors.values())
        self._buffers: dict[str, MirroredArray] = {}
        self._graphs: dict[frozenset, Optional[Any]] = {}  # CUDA graphs, by the memory of others that they read

    def run(self, feeds: Mapping[str, Any], fetch: Sequence[str]) -> dict[str, Any]:
        """Run the engine and wait for it. What was uploaded is returned, too, for the next one."""
        queues = self._queues
        queues.gpu.use()
        shapes = self._feed(feeds)
        # feeds may also name what earlier graphs gave under the names of this one's outputs
        addresses = {name: feeds[name].address for name in self.input_names if isinstance(feeds[name], DeviceTensor)}
        self._compute(addresses)
        outputs: dict[str, Any] = {
            name: DeviceTensor(self._buffers[name].device, tuple(feeds[name].shape))
            for name in self.input_names if name not in addresses
        }  # fmt: skip
        for name, shape in shapes.items():
            buffer = self._buffers[name]
            if name in fetch:
                buffer.fetch(queues.compute, self._tensors[name].num_bytes(shape))
            elif name == 'scores' and queues.keeper is not None:
                outputs[name] = queues.keeper.keep(queues.compute, buffer.device, shape)
            else:
                outputs[name] = DeviceTensor(buffer.device, shape)
        queues.compute.synchronize()
        for name in fetch:
            count = int(np.prod(shapes[name], dtype=np.int64))
            outputs[name] = self._buffers[name].array.reshape(-1)[:count].reshape(shapes[name]).copy()
        return outputs

    def close(self) -> None:
        """Free the engine and its buffers."""
        self._queues.gpu.use()
        self._queues.compute.synchronize()
        while self._graphs:
            graph = self._graphs.popitem()[1]
            if graph is not None:
                self._queues.compute.free_graph(graph)
        while self._buffers:
            self._buffers.popitem()[1].close()
        self._context = self._engine = None

    def _feed(self, feeds: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Upload what comes from the host, and return the shapes of the outputs."""
        context = self._context
        for name in self.input_names:
            value, tensor = feeds[name], self._tensors[name]
            shape = tuple(value.shape)
            if tensor.is_dynamic:
                if not context.set_input_shape(name, shape):
                    raise GraphError(f'{self._name}: input {name} cannot have shape {shape}, at most {tensor.largest}')
            elif shape != tensor.largest:
                raise GraphError(f'{self._name}: input {name}: expected shape {tensor.largest}, got {shape}')
            if isinstance(value, DeviceTensor):
                continue
            if value.dtype != tensor.dtype:
                raise GraphError(f'{self._name}: input {name}: expected {tensor.dtype}, got {value.dtype}')
            buffer = self._buffer(tensor)
            buffer.array.reshape(-1)[: value.size] = value.reshape(-1)
            buffer.upload(self._queues.compute, value.nbytes)
        outputs = [tensor for tensor in self._tensors.values() if not tensor.is_input]
        for tensor in outputs:
            self._buffer(tensor)
        return {
            tensor.name: tuple(context.get_tensor_shape(tensor.name)) if tensor.is_dynamic else tensor.largest
            for tensor in outputs
        }

    def _compute(self, addresses: Mapping[str, int]) -> None:
        """Queue the computation on the engine's own buffers, or on those of other engines at `addresses`."""
        stream, key = self._queues.compute, frozenset(addresses.items())
        graph = self._graphs.get(key)
        if graph is not None:
            stream.replay(graph)
            return
        for name in self._tensors:
            address = addresses[name] if name in addresses else self._buffers[name].device
            if not self._context.set_tensor_address(name, address):
                raise GraphError(f'{self._name}: TensorRT refuses the memory of {name}')
        # TensorRT sets itself up in the first launch, which cannot be captured; the next ones replay the graph.
        if not self._context.execute_async_v3(stream.handle):
            raise CudaError(f'{self._name}: TensorRT cannot run it')
        if self._static and key not in self._graphs:
            self._graphs[key] = self._capture(stream)

    def _buffer(self, tensor: TensorSpec) -> MirroredArray:
        """Return the buffer of a tensor, made when it is first needed, for its largest shape."""
        if tensor.name not in self._buffers:
            self._buffers[tensor.name] = MirroredArray(self._queues.gpu, tensor.largest, tensor.dtype)
        return self._buffers[tensor.name]

    def _capture(self, stream: Stream) -> Optional[Any]:
        """Return a launch as a CUDA graph; None where it cannot be captured, as the log then says."""
        allowed = getattr(self._context, 'is_stream_capturable', None)  # of TensorRT for RTX
        if allowed is not None and not allowed(stream.handle):
            log.warning('%s: no CUDA graph, as TensorRT allocates memory while it runs', self._name)
            return None
        return stream.capture(lambda: bool(self._context.execute_async_v3(stream.handle)))


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
