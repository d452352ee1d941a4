"""The parts of a model, each to be timed by itself, and how their times add up to a variant's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hybrid_seg_ros.evaluation.flops.count import expected_tokens
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import SegVitHead
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.token_counts import count_entering

Part = Callable[[], Any]

AUXILIARY_HEAD, HEAD = 'auxiliary head', 'head'
WHOLE_NETWORK = 'whole network'


@dataclass(frozen=True)
class Stage:
    """A stretch of the encoder: so many layers on so many tokens, and the head behind them."""

    layers: int
    tokens: int
    head: str


def encoder_stages(spec: ModelSpec, variant: Variant, budget: TokenBudget) -> list[Stage]:
    """List the stages of a variant. Raises ValueError for a budget that prunes by threshold."""
    entering, kept = expected_tokens(spec, spec.network_size_hw, variant, budget)
    ends = [*(layer for layer, _ in kept), spec.backbone.depth]
    counts = [entering, *(count for _, count in kept)]
    heads = [*[AUXILIARY_HEAD] * len(kept), HEAD]
    return [Stage(end - start, *each) for start, end, *each in zip([0, *ends], ends, counts, heads)]


def block_part(tokens: int) -> str:
    """Name the part that is one block on so many tokens."""
    return f'block, {tokens} tokens'


def head_part(stage: Stage) -> str:
    """Name the part that is the head of a stage."""
    return f'{stage.head}, {stage.tokens} tokens'


def sum_parts(
    parts_ms: Mapping[str, float], spec: ModelSpec, variant: Variant, budget: TokenBudget
) -> dict[str, float]:
    """Add up the milliseconds of `parts_of` to those of one image: each part as often as the variant runs it.

    What is missing from the whole network is small: position embedding, merging, gathering tokens, writing them back.
    """
    stages = encoder_stages(spec, variant, budget)
    sums = {'embedding': parts_ms['embedding']}
    if variant.merges:
        sums['policy'] = parts_ms['policy']
    sums['blocks'] = sum(stage.layers * parts_ms[block_part(stage.tokens)] for stage in stages)
    if variant.prune_layers:
        sums['auxiliary_heads'] = sum(parts_ms[head_part(stage)] for stage in stages[:-1])
    sums['head'] = parts_ms[head_part(stages[-1])]
    if spec.refinement != 'none':
        sums['refinement'] = parts_ms['refinement']
    return sums


def parts_of(model: HybridSegmenter, variants: Sequence[Variant], budget: TokenBudget) -> dict[str, Part]:
    """Return calls that run one part each, on inputs of the size that they have in the whole model."""
    spec = model.spec
    grid_hw = spec.backbone.grid_hw(spec.network_size_hw)
    cells = grid_hw[0] * grid_hw[1]
    merged = count_entering(grid_hw, budget.windows)
    image = torch.zeros(1, 3, *(side * spec.backbone.patch_size for side in grid_hw))
    image = image.contiguous(memory_format=torch.channels_last)  # as `normalize` leaves it
    parts: dict[str, Part] = {}
    parts['embedding'] = lambda: model.encoder.patch_embed(image)
    if model.policy is not None:
        parts['policy'] = lambda: model.window_logits(image)
    stages = [stage for variant in variants for stage in encoder_stages(spec, variant, budget)]
    for count in dict.fromkeys((cells, merged, *(stage.tokens for stage in stages))):
        tokens = torch.randn(1, spec.backbone.num_prefix_tokens + count, spec.backbone.embed_dim)
        parts[block_part(count)] = lambda tokens=tokens: model.encoder.blocks[0](tokens)
    auxiliary = next(iter(model.auxiliary_heads.values()), None)
    for stage in (Stage(1, merged, AUXILIARY_HEAD), *stages):
        tokens = torch.randn(1, stage.tokens, spec.backbone.embed_dim)
        head = model.head if stage.head == HEAD else auxiliary
        if head is not None:
            seen = [tokens] * len(model.head_layers) if isinstance(head, SegVitHead) else tokens
            parts[head_part(stage)] = lambda head=head, seen=seen: head(seen)
    if model.refinement is not None:
        masks = torch.randn(1, len(spec.classes), *grid_hw)
        parts['refinement'] = lambda: model.refinement(masks, masks, model.refinement.detail(image))
    for variant in variants:
        parts[f'{WHOLE_NETWORK}, {variant}'] = lambda variant=variant: model(image, variant, budget)
    return parts
