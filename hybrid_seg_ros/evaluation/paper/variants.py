"""The paper's variants of a model, opened on one backend, and what is needed to measure them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.benchmark_models import ModelOnDisk
from hybrid_seg_ros.evaluation.benchmark_open import OpenRow
from hybrid_seg_ros.evaluation.benchmark_plan import BackendChoice, RowKey
from hybrid_seg_ros.inference.backends import create_backend
from hybrid_seg_ros.inference.backends.torch_backend import torch_device
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline, check_operating_point
from hybrid_seg_ros.inference.process_memory import keep_freed_memory
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, ModelSpec, ModelSpecError, TokenBudget, Variant


def check_variants(spec: ModelSpec, budget: TokenBudget) -> list[Variant]:
    """Return those of the paper's variants that the model can run. Raises ValueError for a budget that is none."""
    variants = [Variant.parse(name) for name in spec.legal_variants()]
    for variant in variants:
        check_operating_point(spec, variant, budget)
    return variants


def left_out(spec: ModelSpec) -> dict[str, str]:
    """Say of each of the paper's variants that the model cannot run why it cannot."""
    reasons = {}
    for name in PAPER_VARIANTS:
        try:
            spec.check_variant(Variant.parse(name))
        except ModelSpecError as error:
            reasons[name] = str(error)
    return reasons


def open_variants(model: ModelOnDisk, choice: BackendChoice, budget: TokenBudget, device: str) -> list[OpenRow]:
    """Load a model once, and return a row that is ready to run for each variant."""
    keep_freed_memory()  # as load_pipeline does
    spec = model.spec
    variants = check_variants(spec, budget)
    backend = create_backend(choice.name, spec, device, choice.dtype, cache_dir=model.cache_dir)
    backend.keep_open(len(variants))
    rows = []
    for variant in variants:
        pipeline = SegmentationPipeline(spec, backend, choice.name, choice.dtype, variant, budget)
        pipeline.warm_up()
        key = RowKey(spec.name, spec.network_size_hw, str(variant), choice.name, choice.dtype)
        rows.append(OpenRow(key, model, variant, budget, pipeline, pipeline.device_name))
    return rows


def frames_for_timing(dataset: SegmentationDataset, frames: int, rounds: int) -> list[np.ndarray]:
    """Return images, at most one a round, spread over the first `frames` of the dataset."""
    indices = np.unique(np.linspace(0, frames - 1, num=min(frames, rounds)).astype(int))
    return [dataset[index].image for index in indices.tolist()]


def inputs_per_image(spec: ModelSpec, tokens: Mapping[str, float]) -> float:
    """Return how often the network ran for an image: once, or for each crop of the sliding window."""
    grid_hw = spec.backbone.grid_hw(spec.network_size_hw)
    return tokens['total'] / (grid_hw[0] * grid_hw[1])


def mean_budget(spec: ModelSpec, variant: Variant, budget: TokenBudget, tokens: Mapping[str, float]) -> TokenBudget:
    """Return the fixed keep that leaves as many tokens per network input as were left on average.

    `tokens` are the mean counts per image by stage, as in EvaluationResult.
    """
    inputs = inputs_per_image(spec, tokens)
    kept = tuple(max(1, round(tokens[f'kept@{layer}'] / inputs)) for layer in variant.prune_layers)
    return dataclasses.replace(budget, keep=kept or None)


def pytorch_device(name: str) -> torch.device:
    """Return PyTorch's device for what runs in PyTorch beside a backend on `name`: the CPU if it does not see that."""
    try:
        return torch_device(name)
    except ValueError:
        return torch.device('cpu')
