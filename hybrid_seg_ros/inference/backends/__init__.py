"""The only place that maps a backend's name to its class; heavy libraries are imported when one is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from hybrid_seg_ros.inference.backends.base import Backend, list_devices, split_device
from hybrid_seg_ros.model_spec import ModelSpec

BACKENDS: dict[str, tuple[str, ...]] = {
    'pytorch': ('float32', 'bfloat16', 'float16'),
    'onnxruntime': ('float32', 'float16'),
    'openvino': ('float32', 'bfloat16'),
    'tensorrt': ('float32', 'float16'),
}
"""The backends, with the precisions of each."""

PRECISIONS = ('float32', 'bfloat16', 'float16')

DEVICES: dict[str, tuple[str, ...]] = {
    'pytorch': ('cpu', 'cuda'),
    'onnxruntime': ('cpu', 'cuda', 'tensorrt'),
    'openvino': ('cpu',),
    'tensorrt': ('cuda',),
}
"""The kinds of device of each backend; `tensorrt` is ONNX Runtime's TensorRT provider."""

AUTO = 'auto'
"""In the place of a backend, device or precision: what is fastest here (automatic.py)."""

__all__ = ['AUTO', 'BACKENDS', 'DEVICES', 'PRECISIONS', 'Backend', 'BackendChoice', 'check_choice', 'create_backend']


@dataclass(frozen=True)
class BackendChoice:
    """A backend and the precision that it computes in."""

    name: str
    dtype: str

    @classmethod
    def parse(cls, text: str, legal: Mapping[str, tuple[str, ...]] = BACKENDS) -> 'BackendChoice':
        """Read `openvino` (float32) or `openvino:bfloat16`. Raises ValueError that lists what is legal."""
        name, _, dtype = text.partition(':')
        if name not in legal:
            raise ValueError(f'unknown backend {name!r}; legal are {", ".join(legal)}')
        choice = cls(name, dtype or 'float32')
        if choice.dtype not in legal[name]:
            raise ValueError(f'unknown precision {dtype!r}; legal for {name} are {", ".join(legal[name])}')
        return choice

    def __str__(self) -> str:
        return f'{self.name}:{self.dtype}'


def check_choice(backend: str, device: str, precision: str, also: tuple[str, ...] = ()) -> None:
    """Raise ValueError that lists what is legal; `also` is legal for each of the three, and then rules nothing out."""
    if backend not in (*also, *BACKENDS):
        raise ValueError(f'unknown backend {backend!r}; legal are {", ".join((*also, *BACKENDS))}')
    named = BACKENDS.get(backend, PRECISIONS)
    if precision not in (*also, *named):
        of = f' for {backend}' if backend in BACKENDS else ''
        raise ValueError(f'unknown precision {precision!r}; legal{of} are {", ".join((*also, *named))}')
    if device in also:
        return
    kinds = DEVICES.get(backend, DEVICES['onnxruntime'])
    if device.partition(':')[0] in DEVICES['onnxruntime'] and device.partition(':')[0] not in kinds:
        needs = 'needs an NVIDIA GPU' if backend == 'tensorrt' else f'runs on {" and ".join(kinds)}'
        raise ValueError(f'backend {backend} {needs}: expected device {list_devices(kinds)}, got {device!r}')
    split_device(device, kinds)


def exported_precision(precision: str) -> str:
    """Return the precision of the graphs that a backend runs in `precision`: bfloat16 is made of float32 on loading."""
    return 'float32' if precision == 'bfloat16' else precision


def create_backend(
    name: str, spec: ModelSpec, device: str, precision: str, graph: Optional[Union[str, Path]] = None,
    cache_dir: Optional[Union[str, Path]] = None,
) -> Backend:  # fmt: skip
    """Load the model of `spec` into the backend `name`.

    All but PyTorch run graphs: the file `graph` that was exported (or for TensorRT an engine built of one), or those
    that they export and keep in `cache_dir` when an operating point is first used. Raises ValueError that lists what
    is legal, and ModuleNotFoundError where a backend's library is not installed.
    """
    check_choice(name, device, precision)
    if name == 'pytorch':
        if graph is not None:
            raise ValueError(f'backend pytorch runs no graph, got {graph}; expected onnxruntime, openvino or tensorrt')
        from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend

        return TorchBackend.load(spec, device, precision)
    from hybrid_seg_ros.inference.backends.graph_source import CachedGraphs, GraphFiles

    if graph is not None and Path(graph).suffix == '.engine' and name != 'tensorrt':
        raise ValueError(f'backend {name} runs .onnx files, got {graph}; engines run with the backend tensorrt')
    cache = None if cache_dir is None else Path(cache_dir)
    exported = exported_precision(precision)
    source = CachedGraphs(spec, exported, cache) if graph is None else GraphFiles(Path(graph), spec, exported)
    if name == 'onnxruntime':
        from hybrid_seg_ros.inference.backends.onnx_backend import create_onnx_backend

        return create_onnx_backend(source, device)
    if name == 'openvino':
        from hybrid_seg_ros.inference.backends.openvino_backend import create_openvino_backend

        return create_openvino_backend(source, device, precision)
    from hybrid_seg_ros.inference.backends.tensorrt.backend import create_tensorrt_backend

    return create_tensorrt_backend(source, device, cache)
