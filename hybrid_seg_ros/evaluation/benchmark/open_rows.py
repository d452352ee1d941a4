"""The rows of a benchmark opened: each a pipeline that is ready to run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.evaluation.benchmark.baseline_pipeline import BaselinePipeline
from hybrid_seg_ros.evaluation.benchmark.baselines import open_baseline
from hybrid_seg_ros.evaluation.benchmark.models import ModelOnDisk, ModelStore
from hybrid_seg_ros.evaluation.benchmark.plan import BASELINES, ONNXRUNTIME_PLAIN, PLAIN, TORCH_COMPILE, RowKey
from hybrid_seg_ros.evaluation.benchmark.torch_baselines import CompileError, check_compiler
from hybrid_seg_ros.inference.backends import Backend, BackendChoice, create_backend
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend, torch_device
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.process_memory import keep_freed_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenRow:
    """A row that can run.

    `network` is the PyTorch backend's, where its parts can be timed; `graph` is the file of an alternative's export.
    """

    key: RowKey
    model: ModelOnDisk
    variant: Variant
    budget: TokenBudget
    pipeline: Union[SegmentationPipeline, BaselinePipeline]
    device: str
    network: Optional[HybridSegmenter] = None
    graph: Optional[Path] = None


def check_backends(choices: Sequence[BackendChoice], spec: ModelSpec, device: str) -> dict[BackendChoice, Exception]:
    """Return what keeps backends from running here: a library that is missing, a device or precision not to be had."""
    problems: dict[BackendChoice, Exception] = {}
    for choice in choices:
        try:
            if choice.name in ('pytorch', PLAIN, TORCH_COMPILE):
                torch_device(device, choice.dtype)
            else:
                library = 'onnxruntime' if choice.name == ONNXRUNTIME_PLAIN else choice.name
                create_backend(library, spec, device, choice.dtype).close()
            if choice.name == TORCH_COMPILE:
                check_compiler(device)
        except (ModuleNotFoundError, ValueError) as error:
            problems[choice] = type(error)(f'backend {choice}: {error}')
    return problems


def open_rows(
    keys: Sequence[RowKey], store: ModelStore, budget_of: Callable[[ModelSpec], TokenBudget], device: str,
    skip_missing: bool = False,
) -> list[OpenRow]:  # fmt: skip
    """Load every row's network and run it once on an empty image, which exports, compiles and builds engines.

    The variants of a model share one backend. `skip_missing` leaves out what torch.compile cannot compile; ValueError
    if nothing is left.
    """
    keep_freed_memory()  # as load_pipeline does
    backends: dict[tuple[Path, str, str], tuple[Backend, Optional[HybridSegmenter]]] = {}
    rows, problems = [], []
    for key in tqdm(keys, desc='load', unit='row', leave=False, disable=None):
        model = store.find(key)
        budget = budget_of(model.spec)
        try:
            if key.backend in BASELINES:
                rows.append(_open_baseline(key, model, budget, store, device))
                continue
        except CompileError as error:
            if not skip_missing:
                raise
            problems.append(f'{key}: {error}')
            log.warning('skipped %s', problems[-1])
            continue
        place = model.path, key.backend, key.dtype
        if place not in backends:
            backends[place] = _open_backend(key, model, device)
            backends[place][0].keep_open(len(keys))
        backend, network = backends[place]
        variant = Variant.parse(key.variant)
        pipeline = SegmentationPipeline(model.spec, backend, key.backend, key.dtype, variant, budget)
        pipeline.warm_up()
        rows.append(OpenRow(key, model, variant, budget, pipeline, pipeline.device_name, network))
    if not rows:
        raise ValueError(f'no row can run here: {"; ".join(problems)}')
    return rows


def _open_backend(key: RowKey, model: ModelOnDisk, device: str) -> tuple[Backend, Optional[HybridSegmenter]]:
    """Return a backend, and the network of one whose parts can be timed."""
    if key.backend != 'pytorch':
        return create_backend(key.backend, model.spec, device, key.dtype, cache_dir=model.cache_dir), None
    place = torch_device(device, key.dtype)
    network = load_model(model.spec)
    has_parts = key.dtype == 'float32' and device == 'cpu' and model.spec.inference == 'whole'
    return TorchBackend(network, place, key.dtype), network if has_parts else None


def _open_baseline(
    key: RowKey, model: ModelOnDisk, budget: TokenBudget, store: ModelStore, device: str
) -> OpenRow:
    variant = Variant.parse(key.variant)
    graph = store.export(model, key.dtype) if key.backend == ONNXRUNTIME_PLAIN else None
    pipeline = open_baseline(key.backend, model.spec, variant, budget, device, key.dtype, graph)
    pipeline(np.full((*model.spec.network_size_hw, 3), 128, np.uint8))
    return OpenRow(key, model, variant, budget, pipeline, pipeline.device_name, graph=graph)
