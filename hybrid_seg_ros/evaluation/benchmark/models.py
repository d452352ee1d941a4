"""The models of a benchmark on disk, at each size, with weights; and the images that they are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch

from hybrid_seg_ros.data.image_files import IMAGE_SUFFIXES, list_images, read_image
from hybrid_seg_ros.evaluation.benchmark.plan import PLAIN, RowKey, SizedModel
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.evaluation.benchmark.torch_baselines import export_dense
from hybrid_seg_ros.evaluation.flops.paper import paper_form
from hybrid_seg_ros.inference.preprocess import fit_geometry, preprocess
from hybrid_seg_ros.model_spec import ModelSpec, Variant, sha256_of
from hybrid_seg_ros.network.attention_to_mask import AtmHead
from hybrid_seg_ros.network.checkpoint import load_model, load_strictly, resize_position_embedding, save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter


@dataclass(frozen=True)
class ModelOnDisk:
    """A model as every backend can load it. `weights` is 'random', or the sha256 of the file."""

    path: Path
    spec: ModelSpec
    weights: str
    cache_dir: Optional[Path]


def load_specs(
    paths: Sequence[Path], inference: Optional[str] = None, sizes_hw: Sequence[tuple[int, int]] = ()
) -> dict[SizedModel, tuple[Path, ModelSpec]]:
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
            models[SizedModel(name, sized.network_size_hw)] = (path, sized)
    return models


def load_frames(
    folder: Optional[Path], specs: Mapping[SizedModel, ModelSpec], limit: int
) -> dict[SizedModel, list[np.ndarray]]:  # fmt: skip
    """Return the images for each model: the first of a folder, or without one a made-up street of the network's size.

    Raises FileNotFoundError, or ValueError for a folder without images.
    """
    if folder is None:
        return {model: [street_scene(spec.network_size_hw)] for model, spec in specs.items()}
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
        self, models: Mapping[SizedModel, tuple[Path, ModelSpec]], frames: Mapping[SizedModel, Sequence[np.ndarray]],
        folder: Path, seed: int, cache_dir: Optional[Path],
    ) -> None:  # fmt: skip
        self._models, self._frames = models, frames
        self._folder, self._seed, self._cache_dir = folder, seed, cache_dir
        self._made: dict[ModelSpec, ModelOnDisk] = {}

    def find(self, key: RowKey) -> ModelOnDisk:
        """Return the model of a row: of a plain one in the paper's form. One without weights gets random ones."""
        path, spec = self._models[key.sized_model]
        if key.backend == PLAIN:
            spec = paper_form(spec)
        has_weights = spec.weights is not None
        own = dataclasses.replace(ModelSpec.load(path), inference=spec.inference)
        weights = (spec.sha256 or sha256_of(spec.weights_path)) if has_weights else 'random'
        if has_weights and own.input_size_hw == spec.input_size_hw:
            return ModelOnDisk(path, spec, weights, self._cache_dir)
        if spec not in self._made:
            made = self._folder / f'{len(self._made)}' / f'{spec.name}.yaml'
            written = (
                write_at_size(own, spec, made) if has_weights
                else write_random_model(spec, made, self._frames[key.sized_model][0], self._seed)
            )  # fmt: skip
            self._made[spec] = ModelOnDisk(made, written, weights, self._cache_dir or self._folder / 'cache')
        return self._made[spec]

    def export(self, model: ModelOnDisk, precision: str) -> Path:
        """Export the dense network of a model as anybody would, and return the file."""
        path = self._folder / 'dense' / f'{sha256_of(model.spec.weights_path)}.{precision}.onnx'
        if not path.is_file():
            export_dense(model.spec, path, precision)
        return path


FEWEST_PATCHES = 4
"""A side has at least so many: policy networks shrink it 32 times."""

POSITION_EMBEDDING = 'encoder.pos_embed'


def at_size(spec: ModelSpec, size_hw: tuple[int, int]) -> ModelSpec:
    """Return a spec with another input size; a count of merged windows becomes that share of all windows.

    Raises ValueError for a size that is too small, or a model with a sliding window, whose input is a crop whatever the
    image.
    """
    if size_hw == spec.input_size_hw:
        return spec
    if spec.inference != 'whole':
        raise ValueError(f'{spec.name}: expected inference whole to run at other sizes, got {spec.inference}')
    rows, columns = spec.backbone.grid_hw(spec.input_size_hw)
    windows = {
        window: count / ((rows // window) * (columns // window)) if isinstance(count, int) else count
        for window, count in spec.budget.windows
    }
    budget = dataclasses.replace(spec.budget, merged_windows=windows)
    resized = dataclasses.replace(spec, input_size_hw=size_hw, budget=budget)
    smallest = FEWEST_PATCHES * spec.backbone.patch_size
    if min(size_hw) < smallest:
        raise ValueError(f'{spec.name}: expected at least {smallest}x{smallest}, got {size_hw[0]}x{size_hw[1]}')
    return resized


def write_at_size(spec: ModelSpec, resized: ModelSpec, path: Path) -> ModelSpec:
    """Write `path` (YAML) with the weights of `spec` for `resized`, which `at_size` made; returns the spec as written.

    The position embedding is what the network itself would make of it for an image of that size.
    """
    state = load_model(spec).state_dict()
    grids = [each.backbone.grid_hw(each.input_size_hw) for each in (spec, resized)]
    state[POSITION_EMBEDDING] = resize_position_embedding(
        state[POSITION_EMBEDDING], int(spec.backbone.class_token), *grids
    )
    model = HybridSegmenter(resized)
    load_strictly(model, state, str(spec.weights_path))
    return save_model(model.eval(), path, torch.float32)


TRAINED_SPREAD = 4.4
"""Standard deviation of a class's mask logits over an image, in the shipped model on street images (3.8 to 4.7)."""


def random_segmenter(spec: ModelSpec, image: np.ndarray, seed: int) -> HybridSegmenter:
    """Return a segmenter of `spec` with random weights, in evaluation mode; its own weights are not read.

    How long the way from class scores to a label map takes depends on how many classes can win in a cell. Random
    weights alone give flat masks, of which the one or two classes win that are present by chance. So the last
    queries of an ATM head are scaled until its masks of `image` (H, W, 3) uint8 spread as those of a trained model.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(seed)
        model = HybridSegmenter(dataclasses.replace(spec, weights=None, sha256=None)).eval()
    if not isinstance(model.head, AtmHead):
        return model
    geometry = fit_geometry(image.shape[:2], spec)
    with torch.no_grad():
        pixels = torch.from_numpy(preprocess(image, geometry, spec)[None])
        masks = model(model.normalize(pixels), Variant(), spec.budget).stages[-1].mask_logits  # (1, classes, N)
        # a whole number, so that the weights do not depend on the last bits of a sum
        factor = max(1, round(TRAINED_SPREAD / max(float(masks.std(2).mean()), 1e-6)))
        queries = model.head.decoder.layers[-1].mask_attention.q
        queries.weight.mul_(factor)
        queries.bias.mul_(factor)
    return model


def write_random_model(spec: ModelSpec, path: Path, image: np.ndarray, seed: int) -> ModelSpec:
    """Write `path` (YAML) and random weights in float32 beside it; returns the spec as written."""
    return save_model(random_segmenter(spec, image, seed), path, torch.float32)
