"""What a variant costs, everything counted, in fvcore's convention: step by step, per component, and in all.

Token counts enter the formulas (formulas.py), so that threshold pruning is counted per image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybrid_seg_ros.evaluation.flops.formulas import (
    auxiliary_head_flops,
    block_flops,
    convolution_flops,
    head_flops,
    refinement_upsampling_flops,
    upsampling_flops,
)
from hybrid_seg_ros.label_space import LabelSpace, distinct_colors
from hybrid_seg_ros.model_spec import Backbone, Decoder, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.token_merging import count_entering, kept_count

COMPONENTS = ('embedding', 'policy', 'blocks', 'auxiliary_heads', 'head', 'refinement', 'upsampling')
"""In the order in which they run."""


@dataclass(frozen=True)
class Step:
    """One step: its name ('layer 7'), the component that it belongs to ('blocks'), and its multiply-adds."""

    name: str
    component: str
    flops: float


@dataclass(frozen=True)
class VariantCost:
    """What one image costs in a variant: `tokens` enter the encoder, `kept` (layer, tokens) go on after pruning.

    `steps` are in the order in which they run; those that the model or the variant does not have are left out.
    """

    tokens: float
    kept: tuple[tuple[int, float], ...]
    steps: tuple[Step, ...]

    @property
    def flops(self) -> float:
        """Multiply-adds of everything."""
        return sum(step.flops for step in self.steps)

    @property
    def gflops(self) -> float:
        """GFLOPs of everything."""
        return self.flops / 1e9

    def gflops_of(self, component: str) -> float:
        """Return the GFLOPs of one of COMPONENTS."""
        return sum(step.flops for step in self.steps if step.component == component) / 1e9

    def gflops_by_step(self) -> dict[str, float]:
        """Return GFLOPs of each step by its name."""
        return {step.name: step.flops / 1e9 for step in self.steps}

    def as_dict(self, layers: bool = False) -> dict[str, Any]:
        """Return what `hybrid_seg flops --json` writes of a variant; `layers` adds the steps."""
        row: dict[str, Any] = {'tokens': self.tokens, **{f'kept@{layer}': count for layer, count in self.kept}}
        row.update({name: self.gflops_of(name) for name in COMPONENTS}, total=self.gflops)
        if layers:
            row['layers'] = self.gflops_by_step()
        return row


def count_flops(
    spec: ModelSpec, size_hw: tuple[int, int], variant: Variant, entering: float,
    kept: Sequence[tuple[int, float]] = (),
) -> VariantCost:  # fmt: skip
    """Count one image of `size_hw` of which `entering` tokens enter the encoder and `kept` (layer, tokens) go on.

    Raises ModelSpecError for an illegal variant.
    """
    spec.check_variant(variant)
    if tuple(layer for layer, _ in kept) != variant.prune_layers:
        raise ValueError(f'kept: expected tokens after layers {variant.prune_layers} of {variant}, got {tuple(kept)}')
    patch = spec.backbone.patch_size
    grid_hw = spec.backbone.grid_hw(size_hw)
    padded_hw = (grid_hw[0] * patch, grid_hw[1] * patch)
    convolutions = convolution_flops(spec, padded_hw)
    tokens = kept[-1][1] if kept else entering
    steps = [
        Step('embedding', 'embedding', float(entering * 3 * patch**2 * spec.backbone.embed_dim)),
        Step('policy', 'policy', convolutions['policy'] if variant.merges else 0.0),
        *_encoder_steps(spec, float(entering), kept),
        Step('head', 'head', head_flops(spec, tokens)),
        Step('refinement', 'refinement', convolutions['refinement'] + refinement_upsampling_flops(spec, padded_hw)),
        Step('upsampling', 'upsampling', upsampling_flops(spec, padded_hw)),
    ]
    return VariantCost(entering, tuple(kept), tuple(step for step in steps if step.flops))


def _encoder_steps(spec: ModelSpec, tokens: float, kept: Sequence[tuple[int, float]]) -> Iterator[Step]:
    left = dict(kept)
    for layer in range(1, spec.backbone.depth + 1):
        inside = tokens + spec.backbone.num_prefix_tokens
        yield Step(f'layer {layer}', 'blocks', block_flops(inside, spec.backbone.embed_dim))
        if layer in left:
            yield Step(f'auxiliary head {layer}', 'auxiliary_heads', auxiliary_head_flops(spec, tokens))
            tokens = float(left[layer])


def count_variants(
    spec: ModelSpec, size_hw: tuple[int, int], budget: TokenBudget, variants: Sequence[Variant] = ()
) -> dict[str, VariantCost]:
    """Count one image in each variant, by name, for a fixed keep; in all that the model can run if none is given."""
    return {
        str(variant): count_flops(spec, size_hw, variant, *expected_tokens(spec, size_hw, variant, budget))
        for variant in variants or map(Variant.parse, spec.legal_variants())
    }


def frame_gflops(spec: ModelSpec, variant: Variant, stages: Mapping[str, int], with_policy: bool = True) -> float:
    """Return what one image cost, from its token count per stage (`TokenReport.stages`).

    The policy network did not run where another frame chose the windows (not `with_policy`). The crops of a sliding
    window share the tokens evenly. Raises ValueError for the stages of another variant.
    """
    expected = ['total', 'merged', *(f'kept@{layer}' for layer in variant.prune_layers)]
    if list(stages) != expected:
        raise ValueError(f'{variant}: expected tokens of {", ".join(expected)}, got {", ".join(stages)}')
    total, entering, *kept = stages.values()
    grid_hw = spec.backbone.grid_hw(spec.network_size_hw)
    crops = total / (grid_hw[0] * grid_hw[1])
    per_crop = tuple((layer, count / crops) for layer, count in zip(variant.prune_layers, kept))
    cost = count_flops(spec, spec.network_size_hw, variant, entering / crops, per_crop)
    return crops * (cost.gflops - (0.0 if with_policy else cost.gflops_of('policy')))


def expected_tokens(
    spec: ModelSpec, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return (entering, kept) for a fixed keep; a model that prunes by threshold needs an image to know."""
    grid_hw = spec.backbone.grid_hw(size_hw)
    entering = grid_hw[0] * grid_hw[1]
    if variant.merges:
        entering = count_entering(grid_hw, budget.windows)
    kept, tokens = [], entering
    for stage, layer in enumerate(variant.prune_layers):
        keep = budget.keep_at(stage)
        if keep is None:
            raise ValueError('pruning by threshold depends on the image; give a fixed keep')
        tokens = kept_count(tokens, keep)
        kept.append((layer, tokens))
    return entering, tuple(kept)


def form_spec(backbone: Backbone, classes: int, size_hw: tuple[int, int], **form: Any) -> ModelSpec:
    """Return a model without weights whose classes have no names; `form` are fields of ModelSpec."""
    names = tuple(f'class {index}' for index in range(classes))
    # the number of attention heads has no influence; 1 divides every width
    form = {'decoder': Decoder(num_heads=1), **form}
    return ModelSpec('flops', backbone, LabelSpace(names, distinct_colors(classes)), size_hw, **form)
