"""The models of a benchmark on disk, and its rows opened: each a pipeline that is ready to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.data.image_files import IMAGE_SUFFIXES, read_image
from hybrid_seg_ros.evaluation.benchmark_plan import PLAIN, BackendChoice, RowKey
from hybrid_seg_ros.evaluation.paper_form import paper_form
from hybrid_seg_ros.evaluation.plain_pipeline import PlainPipeline
from hybrid_seg_ros.evaluation.random_weights import write_random_model
from hybrid_seg_ros.evaluation.street_scene import street_scene
from hybrid_seg_ros.inference.backends import Backend, create_backend
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend, torch_device
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.inference.process_memory import keep_freed_memory
from hybrid_seg_ros.model_spec import Keep, ModelSpec, TokenBudget, Variant, sha256_of
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.segmentation import Segmentation


class FramePipeline(Protocol):
    """What runs a row: SegmentationPipeline or PlainPipeline."""

    spec: ModelSpec

    def __call__(self, image: np.ndarray) -> Segmentation:
        """Segment an RGB image (H, W, 3) uint8."""

    def close(self) -> None:
        """Free the device."""


@dataclass(frozen=True)
class ModelOnDisk:
    """A model as every backend can load it. `weights` is 'random', or the sha256 of the file."""

    path: Path
    spec: ModelSpec
    weights: str
    cache_dir: Optional[Path]


@dataclass(frozen=True)
class OpenRow:
    """A row that can run; `network` is the PyTorch backend's, where its parts can be timed."""

    key: RowKey
    model: ModelOnDisk
    variant: Variant
    budget: TokenBudget
    pipeline: FramePipeline
    device: str
    network: Optional[HybridSegmenter] = None


def load_specs(paths: Sequence[Path], inference: Optional[str] = None) -> dict[str, tuple[Path, ModelSpec]]:
    """Read the specs by name, or by file where names repeat; `inference` replaces the models' own."""
    specs = [ModelSpec.load(path) for path in paths]
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        names = [str(path) for path in paths]
    if len(set(names)) != len(names):
        raise ValueError(f'--model: expected each model once, got {", ".join(names)}')
    if inference is not None:
        specs = [dataclasses.replace(spec, inference=inference) for spec in specs]
    return {name: (path, spec) for name, path, spec in zip(names, paths, specs)}


def load_frames(folder: Optional[Path], spec: ModelSpec, limit: int) -> list[np.ndarray]:
    """Return the first images of a folder, or a made-up street of the network's size where there is no folder.

    Raises FileNotFoundError, or ValueError for a folder without images.
    """
    if folder is None:
        return [street_scene(spec.network_size_hw)]
    if not folder.is_dir():
        raise FileNotFoundError(f'--images {folder}: no such folder')
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f'--images {folder}: expected image files ({", ".join(IMAGE_SUFFIXES)}), found none')
    return [read_image(path) for path in paths[:limit]]


class ModelStore:
    """Finds or makes the models of rows on disk; random weights and their graphs go to `folder`.

    Graphs of random weights are kept in `cache_dir` only if the user names one: nobody needs them again.
    """

    def __init__(
        self, models: Mapping[str, tuple[Path, ModelSpec]], frames: Mapping[str, Sequence[np.ndarray]], folder: Path,
        seed: int, random_weights: bool, cache_dir: Optional[Path],
    ) -> None:  # fmt: skip
        self._models, self._frames = models, frames
        self._folder, self._seed, self._random_weights, self._cache_dir = folder, seed, random_weights, cache_dir
        self._made: dict[ModelSpec, ModelOnDisk] = {}

    def find(self, key: RowKey) -> ModelOnDisk:
        """Return the model of a row: of a plain one in the paper's form. One without weights gets random ones."""
        path, spec = self._models[key.model]
        if key.backend == PLAIN:
            spec = paper_form(spec)
        if spec.weights is not None and not self._random_weights:
            return ModelOnDisk(path, spec, spec.sha256 or sha256_of(spec.weights_path), self._cache_dir)
        if spec not in self._made:
            made = self._folder / f'{len(self._made)}' / f'{spec.name}.yaml'
            written = write_random_model(spec, made, self._frames[key.model][0], self._seed)
            self._made[spec] = ModelOnDisk(made, written, 'random', self._cache_dir or self._folder / 'cache')
        return self._made[spec]


def check_backends(choices: Sequence[BackendChoice], spec: ModelSpec, device: str) -> dict[BackendChoice, Exception]:
    """Return what keeps backends from running here: a library that is missing, a device or precision not to be had."""
    problems: dict[BackendChoice, Exception] = {}
    for choice in choices:
        try:
            if choice.name in ('pytorch', PLAIN):
                torch_device(device, choice.dtype)
            else:
                create_backend(choice.name, spec, device, choice.dtype).close()
        except (ModuleNotFoundError, ValueError) as error:
            problems[choice] = type(error)(f'backend {choice}: {error}')
    return problems


def open_rows(keys: Sequence[RowKey], store: ModelStore, keep: Sequence[Keep], device: str) -> list[OpenRow]:
    """Load every row's network and run it once on an empty image, which exports graphs and builds engines.

    The variants of a model share one PyTorch network.
    """
    keep_freed_memory()  # as load_pipeline does
    networks: dict[tuple[Path, str], tuple[TorchBackend, HybridSegmenter]] = {}
    return [
        _open_row(key, store.find(key), keep, device, networks)
        for key in tqdm(keys, desc='load', unit='row', leave=False, disable=None)
    ]


def _open_row(
    key: RowKey, model: ModelOnDisk, keep: Sequence[Keep], device: str,
    networks: dict[tuple[Path, str], tuple[TorchBackend, HybridSegmenter]],
) -> OpenRow:  # fmt: skip
    spec, variant = model.spec, Variant.parse(key.variant)
    budget = dataclasses.replace(spec.budget, keep=tuple(keep))
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
