"""TensorRT, or TensorRT for RTX, on an NVIDIA GPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.inference.backends.base import split_device
from hybrid_seg_ros.inference.backends.cuda_device import CudaError, Gpu
from hybrid_seg_ros.inference.backends.device_scores import ScoreKeeper
from hybrid_seg_ros.inference.backends.engine_cache import EngineCache, open_engine_file
from hybrid_seg_ros.inference.backends.engine_file import ENGINE_SUFFIX
from hybrid_seg_ros.inference.backends.graph_backend import GraphBackend
from hybrid_seg_ros.inference.backends.graph_info import GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import GraphSource
from hybrid_seg_ros.inference.backends.kernel_compiler import KernelError
from hybrid_seg_ros.inference.backends.tensorrt_library import load_tensorrt
from hybrid_seg_ros.inference.backends.tensorrt_runner import Queues, TensorRtRunner

log = logging.getLogger(__name__)


def create_tensorrt_backend(source: GraphSource, device: str, cache_dir: Optional[Path] = None) -> GraphBackend:
    """Return a backend on `device`, cuda[:N]. Engines are built when they are first needed and kept in `cache_dir`.

    Raises ModuleNotFoundError where TensorRT or cuda-bindings is missing, ValueError where there is no such GPU.
    """
    _, index = split_device(device, ('cuda',))
    library = load_tensorrt()
    gpu = Gpu(index)
    queues = open_queues(gpu)
    cache = EngineCache(library, gpu.model, cache_dir)
    runtime = library.module.Runtime(library.logger)

    def load(path: Path) -> Optional[Any]:
        return runtime.deserialize_cuda_engine(path.read_bytes())

    def open_graph(path: Path, info: GraphInfo, part: str) -> TensorRtRunner:
        gpu.use()
        if path.suffix == ENGINE_SUFFIX:
            engine = open_engine_file(path, library, gpu.model, load)
        else:
            engine = cache.open(path, info, part, load)
        return TensorRtRunner(engine, queues, path.name)

    def close_device() -> None:
        close_queues(queues)
        gpu.close()

    return GraphBackend(source, open_graph, f'{gpu.model.name} (cuda:{index})', close_device)


def open_queues(gpu: Gpu) -> Queues:
    """Return the queues of a backend. Label maps are made on the GPU where their kernel can be compiled."""
    try:
        keeper = ScoreKeeper(gpu)
    except (KernelError, CudaError) as error:
        log.warning('label maps are made on the CPU: %s', error)
        keeper = None
    return Queues(gpu, gpu.new_stream(), keeper)


def close_queues(queues: Queues) -> None:
    """Give back what open_queues made."""
    queues.gpu.use()
    if queues.keeper is not None:
        queues.keeper.close()
    queues.compute.close()
