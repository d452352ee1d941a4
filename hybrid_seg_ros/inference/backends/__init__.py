"""The only place that maps a backend's name to its class; heavy libraries are imported when one is chosen."""

from __future__ import annotations

from hybrid_seg_ros.inference.backends.base import Backend, GridPrediction
from hybrid_seg_ros.model_spec import ModelSpec

BACKENDS = ('pytorch',)
PRECISIONS = ('float32', 'bfloat16', 'float16')

__all__ = ['BACKENDS', 'PRECISIONS', 'Backend', 'GridPrediction', 'create_backend']


def create_backend(name: str, spec: ModelSpec, device: str, precision: str) -> Backend:
    """Load the model of `spec` into the backend `name`. Raises ValueError that lists the legal names."""
    if precision not in PRECISIONS:
        raise ValueError(f'unknown precision {precision!r}; legal are {", ".join(PRECISIONS)}')
    if name == 'pytorch':
        from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend

        return TorchBackend.load(spec, device, precision)
    raise ValueError(f'unknown backend {name!r}; legal are {", ".join(BACKENDS)}')
