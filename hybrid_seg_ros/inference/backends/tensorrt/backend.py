"""TensorRT, or TensorRT for RTX, on an NVIDIA GPU: engines built when they are first needed, or read from files."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.inference.backends.base import split_device
from hybrid_seg_ros.inference.backends.file_cache import cache_key, cached_folder, default_cache_dir
from hybrid_seg_ros.inference.backends.graph_backend import GraphBackend
from hybrid_seg_ros.inference.backends.graph_info import GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import GraphSource
from hybrid_seg_ros.inference.backends.tensorrt import engine_build
from hybrid_seg_ros.inference.backends.tensorrt.cuda import CudaError, Gpu, GpuModel
from hybrid_seg_ros.inference.backends.tensorrt.engine_build import DEFAULT_BUILD, BuildOptions, build_plan
from hybrid_seg_ros.inference.backends.tensorrt.engine_file import (
    ENGINE_SUFFIX,
    EngineInfo,
    read_engine_info,
    write_engines,
)
from hybrid_seg_ros.inference.backends.tensorrt.label_map import KernelError, ScoreKeeper
from hybrid_seg_ros.inference.backends.tensorrt.library import TensorRt, load_tensorrt
from hybrid_seg_ros.inference.backends.tensorrt.runner import Queues, TensorRtRunner
from hybrid_seg_ros.model_spec import sha256_of

log = logging.getLogger(__name__)

FILE_NAME = f'graph{ENGINE_SUFFIX}'
"""Of an engine in its folder of the cache."""


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


class EngineCache:
    """Builds engines for one GPU with one TensorRT, in `cache_dir`/engines."""

    def __init__(
        self, library: TensorRt, gpu: GpuModel, cache_dir: Optional[Path] = None, options: BuildOptions = DEFAULT_BUILD
    ) -> None:  # fmt: skip
        self._library, self._gpu, self._options = library, gpu, options
        self._folder = (cache_dir or default_cache_dir()) / 'engines'
        self._kept = '' if cache_dir is not None else f', kept in {self._folder}'  # else the caller knows

    def find(self, path: Path, info: GraphInfo, part: str) -> Path:
        """Return the engine of the ONNX file `path`, built if the cache has none that is whole.

        Another graph (thus model, variant, shape, precision), GPU or TensorRT gets another folder. Raises GraphError
        if it cannot be built, OSError that names the folder if that cannot be written.
        """
        digest = sha256_of(path)
        recipe = sha256_of(Path(engine_build.__file__))
        key = cache_key([digest, dataclasses.asdict(self._gpu), self._library.name,
                         dataclasses.asdict(self._options), recipe])  # fmt: skip
        folder = self._folder / f'{info.model}-{info.variant}-{part}-{key}'

        def make(work: Path) -> None:
            log.info('building an engine of %s, %s, %s, %s for %s with %s; takes minutes, once%s',
                     info.model, info.variant, part, info.precision, self._gpu.name, self._library.name,
                     self._kept)  # fmt: skip
            plan = build_plan(self._library, path, info, self._options)
            capabilities = self._options.compute_capabilities or (self._gpu.compute_capability,)
            about = EngineInfo(info, part, digest, self._library.name, capabilities, self._gpu.name)
            write_engines({work / FILE_NAME: (plan.data, about)})

        return cached_folder(folder, make) / FILE_NAME

    def open(self, path: Path, info: GraphInfo, part: str, load: Callable[[Path], Optional[Any]]) -> Any:
        """Return the engine that `load` makes of the file of find(); where it makes None, it is built once more."""
        file = self.find(path, info, part)
        engine = load(file)
        if engine is None:
            log.warning('%s does not take the engine in %s; it is built again', self._library.name, file.parent)
            shutil.rmtree(file.parent)
            engine = load(self.find(path, info, part))
        if engine is None:
            raise GraphError(f'{path}: {self._library.name} does not load the engine that it has just built')
        return engine


def open_engine_file(path: Path, library: TensorRt, gpu: GpuModel, load: Callable[[Path], Optional[Any]]) -> Any:
    """Return the engine that `load` makes of a file that `hybrid_seg build-engine` wrote.

    Raises GraphError if it is damaged or for another GPU or TensorRT.
    """
    info = read_engine_info(path)
    info.check_runs_on(path, library.name, gpu)
    if info.gpu is not None and info.gpu != gpu.name:
        log.warning('%s was built on %s and runs on %s: it may be slower than one built here', path, info.gpu, gpu.name)
    engine = load(path)
    if engine is None:
        raise GraphError(f'{path}: {library.name} does not load it; build it again with hybrid_seg build-engine')
    return engine
