"""The only place that maps a backend's name to its class; heavy libraries are imported when one is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Union

from hybrid_seg_ros.inference.backends.base import Backend, GridPrediction
from hybrid_seg_ros.model_spec import ModelSpec

BACKENDS: dict[str, tuple[str, ...]] = {
    'pytorch': ('float32', 'bfloat16', 'float16'),
    'onnxruntime': ('float32', 'float16'),
    'openvino': ('float32', 'bfloat16'),
    'tensorrt': ('float32', 'float16'),
}
"""The backends, with the precisions of each."""

PRECISIONS = ('float32', 'bfloat16', 'float16')

__all__ = ['BACKENDS', 'PRECISIONS', 'Backend', 'GridPrediction', 'create_backend']


def create_backend(
    name: str, spec: ModelSpec, device: str, precision: str, graph: Optional[Union[str, Path]] = None,
    cache_dir: Optional[Union[str, Path]] = None,
) -> Backend:  # fmt: skip
    """Load the model of `spec` into the backend `name`.

    All but PyTorch run graphs: the file `graph` that was exported (or for TensorRT an engine built of one), or those
    that they export and keep in `cache_dir` when an operating point is first used. Raises ValueError that lists what
    is legal, and ModuleNotFoundError where a backend's library is not installed.
    """
    if name not in BACKENDS:
        raise ValueError(f'unknown backend {name!r}; legal are {", ".join(BACKENDS)}')
    if precision not in BACKENDS[name]:
        raise ValueError(f'unknown precision {precision!r}; legal for {name} are {", ".join(BACKENDS[name])}')
    if name == 'pytorch':
        if graph is not None:
            raise ValueError(f'backend pytorch runs no graph, got {graph}; expected onnxruntime, openvino or tensorrt')
        from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend

        return TorchBackend.load(spec, device, precision)
    from hybrid_seg_ros.inference.backends.graph_source import CachedGraphs, GraphFiles

    if graph is not None and Path(graph).suffix == '.engine' and name != 'tensorrt':
        raise ValueError(f'backend {name} runs .onnx files, got {graph}; engines run with the backend tensorrt')
    cache = None if cache_dir is None else Path(cache_dir)
    exported = 'float32' if precision == 'bfloat16' else precision  # bfloat16 is made of float32 when it is loaded
    source = CachedGraphs(spec, exported, cache) if graph is None else GraphFiles(Path(graph), spec, exported)
    if name == 'onnxruntime':
        from hybrid_seg_ros.inference.backends.onnx_backend import create_onnx_backend

        return create_onnx_backend(source, device)
    if name == 'openvino':
        from hybrid_seg_ros.inference.backends.openvino_backend import create_openvino_backend

        return create_openvino_backend(source, device, precision)
    from hybrid_seg_ros.inference.backends.tensorrt_backend import create_tensorrt_backend

    return create_tensorrt_backend(source, device, cache)
