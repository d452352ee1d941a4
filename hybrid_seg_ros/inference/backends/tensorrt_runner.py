"""One TensorRT engine at work: buffers made once, copies beside the computation, CUDA graphs for fixed shapes.

Everything is there twice, so that the next frame can be uploaded while the one before is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from hybrid_seg_ros.inference.backends.cuda_arrays import MirroredArray
from hybrid_seg_ros.inference.backends.cuda_device import CudaError, Gpu, Stream
from hybrid_seg_ros.inference.backends.device_scores import ScoreKeeper
from hybrid_seg_ros.inference.backends.engine_tensors import TensorSpec, read_tensors
from hybrid_seg_ros.inference.backends.graph_info import GraphError
from hybrid_seg_ros.inference.backends.graph_network import MAX_IN_FLIGHT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queues:
    """Where a backend's work goes: computation, uploads beside it, and what finishes scores on the GPU if it can."""

    gpu: Gpu
    compute: Stream
    uploads: Stream
    keeper: Optional[ScoreKeeper]


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor on the GPU, good until the frame after the next is begun."""

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
        self._slots = [_Slot(queues.gpu) for _ in range(MAX_IN_FLIGHT)]
        self._turn = 0

    def run(self, feeds: Mapping[str, Any], fetch: Sequence[str]) -> dict[str, Any]:
        """Run the engine and wait for it."""
        return self.start(feeds, fetch)()

    def start(self, feeds: Mapping[str, Any], fetch: Sequence[str]) -> Callable[[], dict[str, Any]]:
        """Begin to run the engine; calling what is returned waits for it and gives the outputs.

        That must be called before the frame after the next is begun, whose buffers are the same.
        """
        queues = self._queues
        queues.gpu.use()
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % MAX_IN_FLIGHT
        shapes = self._feed(slot, feeds)
        # feeds may also name what earlier graphs gave under the names of this one's outputs
        addresses = {name: feeds[name].address for name in self.input_names if isinstance(feeds[name], DeviceTensor)}
        self._compute(slot, addresses)
        outputs: dict[str, Any] = {}
        for name, shape in shapes.items():
            buffer = slot.buffers[name]
            if name in fetch:
                buffer.fetch(queues.compute, self._tensors[name].num_bytes(shape))
            elif name == 'scores' and queues.keeper is not None:
                outputs[name] = queues.keeper.keep(queues.compute, buffer.device, shape)
            else:
                outputs[name] = DeviceTensor(buffer.device, shape)
        queues.compute.record(slot.done)

        def finish() -> dict[str, Any]:
            queues.gpu.use()
            queues.gpu.wait_for(slot.done)
            for name in fetch:
                count = int(np.prod(shapes[name], dtype=np.int64))
                outputs[name] = slot.buffers[name].array.reshape(-1)[:count].reshape(shapes[name]).copy()
            return outputs

        return finish

    def close(self) -> None:
        """Free the engine and its buffers."""
        self._queues.gpu.use()
        self._queues.uploads.synchronize()
        self._queues.compute.synchronize()
        while self._slots:
            self._slots.pop().close(self._queues.compute)
        self._context = self._engine = None

    def _feed(self, slot: '_Slot', feeds: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Upload what comes from the host, and return the shapes of the outputs."""
        queues, context = self._queues, self._context
        uploaded = False
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
            buffer = slot.buffer(queues.gpu, tensor)
            buffer.array.reshape(-1)[: value.size] = value.reshape(-1)
            buffer.upload(queues.uploads, value.nbytes)
            uploaded = True
        if uploaded:
            queues.uploads.record(slot.uploaded)
            queues.compute.wait(slot.uploaded)
        outputs = [tensor for tensor in self._tensors.values() if not tensor.is_input]
        for tensor in outputs:
            slot.buffer(queues.gpu, tensor)
        return {
            tensor.name: tuple(context.get_tensor_shape(tensor.name)) if tensor.is_dynamic else tensor.largest
            for tensor in outputs
        }

    def _compute(self, slot: '_Slot', addresses: Mapping[str, int]) -> None:
        """Queue the computation on buffers of the slot, or on those of other engines at `addresses`."""
        stream = self._queues.compute
        if slot.graph is not None:
            stream.replay(slot.graph)
            return
        for name in self._tensors:
            address = addresses[name] if name in addresses else slot.buffers[name].device
            if not self._context.set_tensor_address(name, address):
                raise GraphError(f'{self._name}: TensorRT refuses the memory of {name}')
        # TensorRT sets itself up in the first launch, which cannot be captured; the next ones replay the graph.
        if not self._context.execute_async_v3(stream.handle):
            raise CudaError(f'{self._name}: TensorRT cannot run it')
        if self._static and not addresses and not slot.tried_to_capture:
            slot.tried_to_capture = True
            slot.graph = self._capture(stream)

    def _capture(self, stream: Stream) -> Optional[Any]:
        """Return a launch as a CUDA graph; None where it cannot be captured, as the log then says."""
        allowed = getattr(self._context, 'is_stream_capturable', None)  # of TensorRT for RTX
        if allowed is not None and not allowed(stream.handle):
            log.warning('%s: no CUDA graph, as TensorRT allocates memory while it runs', self._name)
            return None
        return stream.capture(lambda: bool(self._context.execute_async_v3(stream.handle)))


class _Slot:
    """What one frame in flight needs: buffers, its CUDA graph, and when its upload and all its work are done."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.buffers: dict[str, MirroredArray] = {}
        self.uploaded, self.done = gpu.new_event(), gpu.new_event()
        self.graph: Optional[Any] = None
        self.tried_to_capture = False

    def buffer(self, gpu: Gpu, tensor: TensorSpec) -> MirroredArray:
        """Return the buffer of a tensor, made when it is first needed, for its largest shape."""
        if tensor.name not in self.buffers:
            self.buffers[tensor.name] = MirroredArray(gpu, tensor.largest, tensor.dtype)
        return self.buffers[tensor.name]

    def close(self, stream: Stream) -> None:
        if self.graph is not None:
            stream.free_graph(self.graph)
        while self.buffers:
            self.buffers.popitem()[1].close()
        for event in (self.uploaded, self.done):
            self._gpu.free_event(event)
