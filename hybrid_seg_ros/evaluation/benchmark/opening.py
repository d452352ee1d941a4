"""The rows of a benchmark opened: each a pipeline that is ready to run."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.evaluation.benchmark.dense_network import CompileError, check_compiler, open_compiled
from hybrid_seg_ros.evaluation.benchmark.dense_pipeline import open_exported
from hybrid_seg_ros.evaluation.benchmark.models import ModelOnDisk, ModelStore
from hybrid_seg_ros.evaluation.benchmark.plain_pipeline import PlainPipeline
from hybrid_seg_ros.evaluation.benchmark.plan import ONNXRUNTIME_PLAIN, PLAIN, TORCH_COMPILE, BackendChoice, RowKey
from hybrid_seg_ros.inference.backends import Backend, create_backend
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend, torch_device
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.inference.process_memory import keep_freed_memory
from hybrid_seg_ros.model_spec import Keep, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.segmentation import Segmentation

log = logging.getLogger(__name__)

KEEP = 0.6
"""What stays at a pruning layer of a model whose own rule is a threshold: all rows are to run as many tokens."""


class FramePipeline(Protocol):
    """What runs a row: SegmentationPipeline, PlainPipeline or DensePipeline."""

    spec: ModelSpec

    def __call__(self, image: np.ndarray) -> Segmentation:
        """Segment an RGB image (H, W, 3) uint8."""

    def close(self) -> None:
        """Free the device."""


@dataclass(frozen=True)
class OpenRow:
    """A row that can run.

    `network` is the PyTorch backend's, where its parts can be timed; `graph` is the file of an alternative's export.
    """

    key: RowKey
    model: ModelOnDisk
    variant: Variant
    budget: TokenBudget
    pipeline: FramePipeline
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
    keys: Sequence[RowKey], store: ModelStore, keep: Optional[Sequence[Keep]], device: str, skip_missing: bool = False
) -> list[OpenRow]:
    """Load every row's network and run it once on an empty image, which exports, compiles and builds engines.

    `keep` None is the model's own, or KEEP. The variants of a model share one PyTorch network. `skip_missing` leaves
    out what torch.compile cannot compile; ValueError if nothing is left.
    """
    keep_freed_memory()  # as load_pipeline does
    networks: dict[tuple[Path, str], tuple[TorchBackend, HybridSegmenter]] = {}
    rows, problems = [], []
    for key in tqdm(keys, desc='load', unit='row', leave=False, disable=None):
        try:
            rows.append(_open_row(key, store, keep, device, networks))
        except CompileError as error:
            if not skip_missing:
                raise
            problems.append(f'{key}: {error}')
            log.warning('skipped %s', problems[-1])
    if not rows:
        raise ValueError(f'no row can run here: {"; ".join(problems)}')
    return rows


def _open_row(
    key: RowKey, store: ModelStore, keep: Optional[Sequence[Keep]], device: str,
    networks: dict[tuple[Path, str], tuple[TorchBackend, HybridSegmenter]],
) -> OpenRow:  # fmt: skip
    model = store.find(key)
    spec, variant = model.spec, Variant.parse(key.variant)
    budget = dataclasses.replace(spec.budget, keep=tuple(keep or spec.budget.keep or (KEEP,)))
    if key.backend == TORCH_COMPILE:
        compiled = open_compiled(spec, device, key.dtype)
        return OpenRow(key, model, variant, budget, compiled, compiled.device_name)
    if key.backend == ONNXRUNTIME_PLAIN:
        graph = store.export(model, key.dtype)
        exported = open_exported(spec, graph, device)
        exported(np.full((*spec.network_size_hw, 3), 128, np.uint8))
        return OpenRow(key, model, variant, budget, exported, exported.device_name, graph=graph)
    if key.backend == PLAIN:
        plain = PlainPipeline.load(spec, variant, budget, device, key.dtype)
        return OpenRow(key, model, variant, budget, plain, plain.device_name)
    network = None
    if key.backend == 'pytorch':
        place = torch_device(device, key.dtype)
        if (model.path, key.dtype) not in networks:
            network = load_model(spec)
            networks[model.path, key.dtype] = (TorchBackend(network, place, key.dtype), network)
        backend: Backend
        backend, network = networks[model.path, key.dtype]
    else:
        backend = create_backend(key.backend, spec, device, key.dtype, cache_dir=model.cache_dir)
    pipeline = SegmentationPipeline(spec, backend, key.backend, key.dtype, variant, budget)
    pipeline.warm_up()
    has_parts = key.dtype == 'float32' and device == 'cpu' and spec.inference == 'whole'
    return OpenRow(key, model, variant, budget, pipeline, pipeline.device_name, network if has_parts else None)
