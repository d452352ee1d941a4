"""A model at another input size than its own: the same weights, with the position embedding resized."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import load_model, load_strictly, resize_position_embedding, save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter

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
