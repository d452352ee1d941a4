"""Multiply-adds of one image step by step, in the order in which the network takes the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hybrid_seg_ros.evaluation.convolution_flops import convolution_flops
from hybrid_seg_ros.evaluation.flop_formulas import (
    auxiliary_head_flops,
    block_flops,
    head_flops,
    refinement_upsampling_flops,
    upsampling_flops,
)
from hybrid_seg_ros.model_spec import ModelSpec, Variant


@dataclass(frozen=True)
class Step:
    """One step: its name ('layer 7'), the component that it belongs to ('blocks'), and its multiply-adds."""

    name: str
    component: str
    flops: float


def layer_flops(
    spec: ModelSpec, size_hw: tuple[int, int], variant: Variant, entering: float,
    kept: Sequence[tuple[int, float]] = (), windows: Sequence[int] = (2,),
) -> tuple[tuple[str, float], ...]:  # fmt: skip
    """Return (name, multiply-adds) of each step of one image, in order; arguments as of `count_flops`.

    embedding, policy, layer 1 to the last one with each auxiliary head behind its layer, head, refinement,
    upsampling. Steps that the model or the variant does not have are left out. The sum is the total of `count_flops`.
    """
    return tuple((step.name, step.flops) for step in count_steps(spec, size_hw, variant, entering, kept, windows))


def count_steps(
    spec: ModelSpec, size_hw: tuple[int, int], variant: Variant, entering: float,
    kept: Sequence[tuple[int, float]] = (), windows: Sequence[int] = (2,),
) -> tuple[Step, ...]:  # fmt: skip
    """Count as `layer_flops` does, with the component of each step. Raises ModelSpecError for an illegal variant."""
    spec.check_variant(variant)
    if tuple(layer for layer, _ in kept) != variant.prune_layers:
        raise ValueError(f'kept: expected tokens after layers {variant.prune_layers} of {variant}, got {tuple(kept)}')
    patch = spec.backbone.patch_size
    grid_hw = spec.backbone.grid_hw(size_hw)
    padded_hw = (grid_hw[0] * patch, grid_hw[1] * patch)
    convolutions = convolution_flops(spec, padded_hw)
    shared = windows if entering < grid_hw[0] * grid_hw[1] else ()
    tokens = kept[-1][1] if kept else entering
    steps = [
        Step('embedding', 'embedding', _embedding_flops(spec, grid_hw, shared)),
        Step('policy', 'policy', convolutions['policy'] if variant.merges else 0.0),
        *_encoder_steps(spec, float(entering), kept),
        Step('head', 'head', head_flops(spec, tokens)),
        Step('refinement', 'refinement', convolutions['refinement'] + refinement_upsampling_flops(spec, padded_hw)),
        Step('upsampling', 'upsampling', upsampling_flops(spec, padded_hw)),
    ]
    return tuple(step for step in steps if step.flops)


def _embedding_flops(spec: ModelSpec, grid_hw: tuple[int, int], windows: Sequence[int]) -> float:
    """Count every patch and, where windows share a token, every whole window of these sizes as well."""
    embedded = sum((grid_hw[0] // window) * (grid_hw[1] // window) for window in (1, *windows))
    return float(embedded * 3 * spec.backbone.patch_size**2 * spec.backbone.embed_dim)


def _encoder_steps(spec: ModelSpec, tokens: float, kept: Sequence[tuple[int, float]]) -> Iterator[Step]:
    left = dict(kept)
    for layer in range(1, spec.backbone.depth + 1):
        inside = tokens + spec.backbone.num_prefix_tokens
        yield Step(f'layer {layer}', 'blocks', block_flops(inside, spec.backbone.embed_dim))
        if layer in left:
            yield Step(f'auxiliary head {layer}', 'auxiliary_heads', auxiliary_head_flops(spec, tokens))
            tokens = float(left[layer])
