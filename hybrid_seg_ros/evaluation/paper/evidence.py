"""What `hybrid_seg paper` shows of a model: every variant evaluated and timed on a data set, and its tokens drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch

from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.data.segmentation_dataset import FileDataset
from hybrid_seg_ros.evaluation.benchmark_models import ModelOnDisk, ModelStore
from hybrid_seg_ros.evaluation.benchmark_open import OpenRow, check_backends
from hybrid_seg_ros.evaluation.benchmark_plan import BackendChoice, RowKey
from hybrid_seg_ros.evaluation.benchmark_rows import DENSE
from hybrid_seg_ros.evaluation.evaluate_dataset import check_classes, count_frames
from hybrid_seg_ros.evaluation.machine import describe_cpu
from hybrid_seg_ros.evaluation.paper.image_choice import find_samples
from hybrid_seg_ros.evaluation.paper.layer_costs import measure_layers
from hybrid_seg_ros.evaluation.paper.measured_rows import measure_rows
from hybrid_seg_ros.evaluation.paper.results import PaperTables, Subject
from hybrid_seg_ros.evaluation.paper.token_pictures import TokenFigures, draw_token_figures
from hybrid_seg_ros.evaluation.paper.variants import (
    check_variants,
    frames_for_timing,
    left_out,
    mean_budget,
    open_variants,
    pytorch_device,
)
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.model_spec import Keep, ModelSpec, TokenBudget
from hybrid_seg_ros.network.checkpoint import load_model


@dataclass(frozen=True)
class PaperOptions:
    """A model, a data set and how to measure; without `keep` and `threshold` tokens leave as the model's budget has it.

    `choice` and `device` are those of the tables: layers are timed, and tokens drawn, in PyTorch and float32. `limit`
    takes only the first images, `images` are the names of those whose merged patches are shown.
    """

    model: Path
    root: Path
    dataset: str = 'camvid'
    split: str = 'val'
    choice: BackendChoice = BackendChoice('pytorch', 'float32')
    device: str = 'cpu'
    keep: Optional[Sequence[Keep]] = None
    threshold: Optional[float] = None
    limit: Optional[int] = None
    rounds: int = 30
    images: Optional[Sequence[str]] = None
    cache_dir: Optional[Path] = None

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f'--rounds: expected at least 1, got {self.rounds}')


@dataclass(frozen=True)
class PaperEvidence:
    """The numbers of tables 1.1 and 1.2 and of figure 1.3, and the pictures of figures 1.2, 1.4 and 1.5."""

    tables: PaperTables
    figures: TokenFigures


def paper_evidence(options: PaperOptions) -> PaperEvidence:
    """Measure and draw everything. Raises ValueError or OSError, before that, for what is wrong with the options."""
    spec = ModelSpec.load(options.model)
    budget = choose_budget(spec.budget, options.keep, options.threshold)
    dataset = _checked_dataset(options, spec, budget)
    frames = count_frames(dataset, options.limit)
    images = frames_for_timing(dataset, frames, options.rounds)
    # with a fixed keep every image would lose as many tokens
    threshold = choose_budget(budget, threshold=budget.threshold)
    device = pytorch_device(options.device)
    with tempfile.TemporaryDirectory(prefix='hybrid_seg_paper_') as folder:
        model = _stored_model(options, spec, images, Path(folder))
        opened = open_variants(model, options.choice, budget, options.device)
        rows, slower = measure_rows(opened, dataset, options.limit, images, options.rounds)
        opened[0].pipeline.close()  # they share one backend
        network = load_model(model.spec)
        backend = TorchBackend(network, device)  # makes the network ready for inference
        budgets = {each.variant: mean_budget(spec, each.variant, budget, row.tokens)
                   for each, row in zip(opened, rows)}  # fmt: skip
        layers = measure_layers(network, budgets, device, options.rounds)
        figures = draw_token_figures(backend, spec, threshold, dataset, frames, options.images)
        backend.close()
    subject = _subject(options, spec, budget, frames, opened[0], backend.device_name)
    return PaperEvidence(PaperTables(subject, tuple(rows), tuple(layers), left_out(spec), tuple(slower)), figures)


def describe_pruning(budget: TokenBudget) -> str:
    """Say by what rule tokens leave."""
    if budget.keep is None:
        return f'above a confidence of {budget.threshold:g} (the {budget.keep_per_class} surest of a class stay)'
    return f'the surest first, until so many stay at a pruning layer: {", ".join(map(str, budget.keep))}'


def _checked_dataset(options: PaperOptions, spec: ModelSpec, budget: TokenBudget) -> FileDataset:
    """Open the data set, and raise what would otherwise be found after minutes."""
    check_variants(spec, budget)
    dataset = open_dataset(options.dataset, options.root, options.split)
    check_classes(spec, dataset)
    frames = count_frames(dataset, options.limit)
    if options.images is not None:
        find_samples(dataset, frames, options.images)
    for problem in check_backends([options.choice], spec, options.device).values():
        raise problem
    return dataset


def _stored_model(options: PaperOptions, spec: ModelSpec, images: Sequence[np.ndarray], folder: Path) -> ModelOnDisk:
    """Return the model as every backend can load it; one without weights gets random ones."""
    key = RowKey(spec.name, spec.network_size_hw, DENSE, options.choice.name, options.choice.dtype)
    models, frames = {key.subject: (options.model, spec)}, {key.subject: images}
    store = ModelStore(models, frames, folder, seed=0, random_weights=False, cache_dir=options.cache_dir)
    return store.find(key)


def _subject(
    options: PaperOptions, spec: ModelSpec, budget: TokenBudget, frames: int, opened: OpenRow, parts_device: str
) -> Subject:
    return Subject(
        model=spec.name, weights=opened.model.weights, size_hw=spec.network_size_hw,
        sliding=spec.inference == 'sliding', classes=len(spec.classes), dataset=options.dataset, split=options.split,
        frames=frames, backend=options.choice.name, dtype=options.choice.dtype, device=_describe(opened.device),
        parts_device=_describe(parts_device), rounds=options.rounds, pruning=describe_pruning(budget),
        threshold=budget.threshold,
    )  # fmt: skip


def _describe(device: str) -> str:
    return describe_cpu(torch.get_num_threads()) if device == 'cpu' else device
