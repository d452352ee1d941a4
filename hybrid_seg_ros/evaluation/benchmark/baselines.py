"""What a benchmark is compared with: the official way, and the dense model as it is commonly deployed.

PyTorch is imported where it is needed, so that an exported graph runs, and its memory is measured, without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np

from hybrid_seg_ros.evaluation.benchmark.baseline_pipeline import BaselinePipeline, dense_pipeline
from hybrid_seg_ros.evaluation.benchmark.plan import ONNXRUNTIME_PLAIN, TORCH_COMPILE
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant


def open_baseline(
    backend: str, spec: ModelSpec, variant: Variant, budget: TokenBudget, device: str, precision: str,
    graph: Optional[Path] = None,
) -> BaselinePipeline:  # fmt: skip
    """Open one of BASELINES; `graph` is what `export_dense` wrote, for the one that runs it.

    Raises CompileError, or ValueError for a device or precision that cannot be had.
    """
    if backend == ONNXRUNTIME_PLAIN:
        return open_exported(spec, graph, device)
    from hybrid_seg_ros.evaluation.benchmark.torch_baselines import open_compiled, open_plain

    if backend == TORCH_COMPILE:
        return open_compiled(spec, device, precision)
    return open_plain(spec, variant, budget, device, precision)


def open_exported(spec: ModelSpec, path: Path, device: str) -> BaselinePipeline:
    """Open a graph that `export_dense` wrote, in ONNX Runtime as it comes."""
    from hybrid_seg_ros.inference.backends.onnx_backend import name_device, open_session

    session = open_session(path, device)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, confidence = session.run(None, {'image': images})
        return labels, confidence

    return dense_pipeline(spec, run, name_device(device))
