"""The parts of a network, each to be timed by itself, and how their times add up to a variant's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hybrid_seg_ros.evaluation.flops.count import expected_tokens
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import SegVitHead
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.token_layout import TokenLayout
from hybrid_seg_ros.network.token_merging import choose_windows, count_merged_windows

WHOLE_NETWORK = 'whole network'


def parts_of_steps(spec: ModelSpec, variant: Variant, budget: TokenBudget) -> dict[str, str]:
    """Return, for each step of `count_flops` that can be timed, the part of `parts_of` that it is one run of.

    Raises ValueError for a budget that prunes by threshold.
    """
    tokens, kept = expected_tokens(spec, spec.network_size_hw, variant, budget)
    left = dict(kept)
    parts = {'embedding': f'embedding, {tokens} tokens', **({'policy': 'policy'} if variant.merges else {})}
    for layer in range(1, spec.backbone.depth + 1):
        parts[f'layer {layer}'] = f'block, {tokens} tokens'
        if layer in left:
            parts[f'auxiliary head {layer}'] = f'auxiliary head, {tokens} tokens'
            tokens = left[layer]
    parts['head'] = f'head, {tokens} tokens'
    if spec.refinement != 'none':
        parts['refinement'] = 'refinement'
    return parts


def sum_parts(
    parts_ms: Mapping[str, float], spec: ModelSpec, variant: Variant, budget: TokenBudget
) -> dict[str, float]:
    """Add up the milliseconds of `parts_of` to those of one image, by component: each part as often as it runs.

    What is missing from the whole network is small: choosing windows, gathering tokens, writing them back.
    """
    sums: dict[str, float] = {}
    for step, part in parts_of_steps(spec, variant, budget).items():
        kind = step.rstrip(' 0123456789')
        component = {'layer': 'blocks', 'auxiliary head': 'auxiliary_heads'}.get(kind, kind)
        sums[component] = sums.get(component, 0.0) + parts_ms[part]
    return sums


def parts_of(
    model: HybridSegmenter, variants: Sequence[Variant], budget: TokenBudget
) -> dict[str, Callable[[], Any]]:
    """Return calls that run each part of the variants once, and each variant whole, on inputs of the size they have."""
    spec = model.spec
    grid_hw = spec.backbone.grid_hw(spec.network_size_hw)
    image = torch.zeros(1, 3, *(side * spec.backbone.patch_size for side in grid_hw))
    image = image.contiguous(memory_format=torch.channels_last)  # as `normalize` leaves it
    masks = torch.randn(1, len(spec.classes), *grid_hw)
    of_image = {
        'policy': lambda: model.window_logits(image),
        'refinement': lambda: model.refinement(masks, masks, model.refinement.detail(image)),
    }  # fmt: skip
    auxiliary = next(iter(model.auxiliary_heads.values()), None)
    of_tokens = {'block': model.encoder.blocks[0], 'head': model.head, 'auxiliary head': auxiliary}
    parts: dict[str, Callable[[], Any]] = {}
    for variant in variants:
        entering, *others = parts_of_steps(spec, variant, budget).values()
        layout = _some_layout(grid_hw, budget) if variant.merges else TokenLayout.identity(1, grid_hw, image.device)
        parts.setdefault(entering, lambda layout=layout: model.encoder.embed(image, layout))
        for name in others:
            kind, _, tokens = name.partition(', ')
            if name not in parts:
                parts[name] = of_image.get(kind) or _call_on_tokens(model, of_tokens[kind], int(tokens.split()[0]))
    for variant in variants:
        parts[f'{WHOLE_NETWORK}, {variant}'] = lambda variant=variant: model(image, variant, budget)
    return parts


def _some_layout(grid_hw: tuple[int, int], budget: TokenBudget) -> TokenLayout:
    """Return the tokens of one image of which the first windows of each size merge."""
    counts = count_merged_windows(grid_hw, budget.windows)
    scores = {window: np.zeros((1, grid_hw[0] // window, grid_hw[1] // window)) for window in counts}
    return TokenLayout.of(choose_windows(scores, counts, grid_hw), torch.device('cpu'))


def _call_on_tokens(model: HybridSegmenter, module: torch.nn.Module, count: int) -> Callable[[], Any]:
    """Return a call of a block, which sees the prefix tokens as well, or of a head on so many tokens."""
    backbone = model.spec.backbone
    prefix = backbone.num_prefix_tokens if module is model.encoder.blocks[0] else 0
    tokens = torch.randn(1, prefix + count, backbone.embed_dim)
    seen = [tokens] * len(model.head_layers) if isinstance(module, SegVitHead) else tokens
    return lambda: module(seen)
