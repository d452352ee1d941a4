"""Semantic segmentation with a vision transformer that merges and prunes its tokens, for ROS 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybrid_seg_ros.inference import load_pipeline

__all__ = ['__version__', 'load_pipeline']
__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
    """Import `load_pipeline`, with OpenCV and all, when it is first asked for (PEP 562)."""
    if name == 'load_pipeline':
        from hybrid_seg_ros.inference import load_pipeline

        return load_pipeline
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
