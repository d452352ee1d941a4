"""The models of a benchmark on disk, as every backend can load them, and the images that they are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from hybrid_seg_ros.data.image_files import IMAGE_SUFFIXES, list_images, read_image
from hybrid_seg_ros.evaluation.benchmark_plan import PLAIN, RowKey, Subject
from hybrid_seg_ros.evaluation.dense_network import export_dense
from hybrid_seg_ros.evaluation.paper_form import paper_form
from hybrid_seg_ros.evaluation.random_weights import write_random_model
from hybrid_seg_ros.evaluation.resized_model import at_size, write_at_size
from hybrid_seg_ros.evaluation.street_scene import street_scene
from hybrid_seg_ros.model_spec import ModelSpec, sha256_of


@dataclass(frozen=True)
class ModelOnDisk:
    """A model as every backend can load it. `weights` is 'random', or the sha256 of the file."""

    path: Path
    spec: ModelSpec
    weights: str
    cache_dir: Optional[Path]


def load_specs(
    paths: Sequence[Path], inference: Optional[str] = None, sizes_hw: Sequence[tuple[int, int]] = ()
) -> dict[Subject, tuple[Path, ModelSpec]]:
    """Read the specs by name, or by file where names repeat, and by size.

    `inference` replaces the models' own. Without `sizes_hw` each model has its own size. Raises ValueError for a size
    that a model cannot have.
    """
    specs = [ModelSpec.load(path) for path in paths]
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        names = [str(path) for path in paths]
    if len(set(names)) != len(names):
        raise ValueError(f'--model: expected each model once, got {", ".join(names)}')
    if inference is not None:
        specs = [dataclasses.replace(spec, inference=inference) for spec in specs]
    models = {}
    for name, path, spec in zip(names, paths, specs):
        for sized in [at_size(spec, size_hw) for size_hw in sizes_hw] or [spec]:
            models[Subject(name, sized.network_size_hw)] = (path, sized)
    return models


def load_frames(
    folder: Optional[Path], specs: Mapping[Subject, ModelSpec], limit: int
) -> dict[Subject, list[np.ndarray]]:  # fmt: skip
    """Return the images for each model: the first of a folder, or without one a made-up street of the network's size.

    Raises FileNotFoundError, or ValueError for a folder without images.
    """
    if folder is None:
        return {subject: [street_scene(spec.network_size_hw)] for subject, spec in specs.items()}
    if not folder.is_dir():
        raise FileNotFoundError(f'--images {folder}: no such folder')
    paths = list_images(folder)
    if not paths:
        raise ValueError(f'--images {folder}: expected image files ({", ".join(IMAGE_SUFFIXES)}), found none')
    images = [read_image(path) for path in paths[:limit]]
    return dict.fromkeys(specs, images)


class ModelStore:
    """Finds or makes the models of rows on disk; random and resized weights and their graphs go to `folder`.

    Graphs of these are kept in `cache_dir` only if the user names one: nobody needs them again.
    """

    def __init__(
        self, models: Mapping[Subject, tuple[Path, ModelSpec]], frames: Mapping[Subject, Sequence[np.ndarray]],
        folder: Path, seed: int, random_weights: bool, cache_dir: Optional[Path],
    ) -> None:  # fmt: skip
        self._models, self._frames = models, frames
        self._folder, self._seed, self._random_weights, self._cache_dir = folder, seed, random_weights, cache_dir
        self._made: dict[ModelSpec, ModelOnDisk] = {}

    def find(self, key: RowKey) -> ModelOnDisk:
        """Return the model of a row: of a plain one in the paper's form. One without weights gets random ones."""
        path, spec = self._models[key.subject]
        if key.backend == PLAIN:
            spec = paper_form(spec)
        has_weights = spec.weights is not None and not self._random_weights
        own = dataclasses.replace(ModelSpec.load(path), inference=spec.inference)
        weights = (spec.sha256 or sha256_of(spec.weights_path)) if has_weights else 'random'
        if has_weights and own.input_size_hw == spec.input_size_hw:
            return ModelOnDisk(path, spec, weights, self._cache_dir)
        if spec not in self._made:
            made = self._folder / f'{len(self._made)}' / f'{spec.name}.yaml'
            written = (
                write_at_size(own, spec, made) if has_weights
                else write_random_model(spec, made, self._frames[key.subject][0], self._seed)
            )  # fmt: skip
            self._made[spec] = ModelOnDisk(made, written, weights, self._cache_dir or self._folder / 'cache')
        return self._made[spec]

    def export(self, model: ModelOnDisk, precision: str) -> Path:
        """Export the dense network of a model as anybody would, and return the file."""
        path = self._folder / 'dense' / f'{sha256_of(model.spec.weights_path)}.{precision}.onnx'
        if not path.is_file():
            export_dense(model.spec, path, precision)
        return path
