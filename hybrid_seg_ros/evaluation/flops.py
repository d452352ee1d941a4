"""What a variant costs, everything counted, in fvcore's convention: GFLOPs per component.

Token counts enter the formulas (flop_formulas.py), so that threshold pruning is counted per image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from hybrid_seg_ros.evaluation.layer_flops import count_steps, layer_flops
from hybrid_seg_ros.label_space import LabelSpace, distinct_colors
from hybrid_seg_ros.model_spec import Backbone, Decoder, Keep, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.token_counts import count_merged_windows, kept_count


@dataclass(frozen=True)
class FlopCount:
    """Multiply-adds per component; `stem` is the shared trunk and what brings its features into the tokens."""

    embedding: float = 0.0
    stem: float = 0.0
    policy: float = 0.0
    blocks: float = 0.0
    auxiliary_heads: float = 0.0
    head: float = 0.0
    refinement: float = 0.0
    upsampling: float = 0.0

    @property
    def total(self) -> float:
        """Multiply-adds of everything."""
        return sum(dataclasses.asdict(self).values())

    def gflops(self) -> dict[str, float]:
        """Return GFLOPs per component and in total."""
        counts = {**dataclasses.asdict(self), 'total': self.total}
        return {name: count / 1e9 for name, count in counts.items()}


COMPONENTS = tuple(field.name for field in dataclasses.fields(FlopCount))
"""In the order in which they run."""


def count_flops(
    spec: ModelSpec, size_hw: tuple[int, int], variant: Variant, entering: float,
    kept: Sequence[tuple[int, float]] = (),
) -> FlopCount:  # fmt: skip
    """Count one image of `size_hw` of which `entering` tokens enter the encoder and `kept` (layer, tokens) go on."""
    counts = dict.fromkeys(COMPONENTS, 0.0)
    for step in count_steps(spec, size_hw, variant, entering, kept):
        counts[step.component] += step.flops
    return FlopCount(**counts)


def expected_tokens(
    spec: ModelSpec, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return (entering, kept) for a fixed keep; a model that prunes by threshold needs an image to know."""
    grid_hw = spec.backbone.grid_hw(size_hw)
    entering = grid_hw[0] * grid_hw[1]
    if variant.merges:
        entering -= 3 * count_merged_windows(grid_hw, budget.merged_windows)
    kept, tokens = [], entering
    for stage, layer in enumerate(variant.prune_layers):
        keep = budget.keep_at(stage)
        if keep is None:
            raise ValueError('pruning by threshold depends on the image; give a fixed keep')
        tokens = kept_count(tokens, keep)
        kept.append((layer, tokens))
    return entering, tuple(kept)


def spec_table(
    spec: ModelSpec, size_hw: tuple[int, int], budget: TokenBudget, variants: Sequence[Variant] = (),
    layers: bool = False,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Return, for each variant, its tokens and GFLOPs per component, for a fixed keep.

    All that the model can run of the paper's if no variants are given. With `layers` each row also has 'layers': the
    GFLOPs of each step, in order.
    """
    table: dict[str, dict[str, Any]] = {}
    for variant in variants or [Variant.parse(name) for name in spec.legal_variants()]:
        entering, kept = expected_tokens(spec, size_hw, variant, budget)
        counts = count_flops(spec, size_hw, variant, entering, kept).gflops()
        row: dict[str, Any] = {'tokens': entering, **{f'kept@{layer}': n for layer, n in kept}, **counts}
        if layers:
            row['layers'] = {name: n / 1e9 for name, n in layer_flops(spec, size_hw, variant, entering, kept)}
        table[str(variant)] = row
    return table


def form_spec(backbone: Backbone, classes: int, size_hw: tuple[int, int], **form: Any) -> ModelSpec:
    """Return a model without weights whose classes have no names; `form` are fields of ModelSpec."""
    names = tuple(f'class {index}' for index in range(classes))
    # the number of attention heads has no influence; 1 divides every width
    form = {'decoder': Decoder(num_heads=1), **form}
    return ModelSpec('flops', backbone, LabelSpace(names, distinct_colors(classes)), size_hw, **form)


def flops_table(
    backbone: Backbone, classes: int, size_hw: tuple[int, int], keep: Keep, decoder: Optional[Decoder] = None,
    stem: str = 'patch', policy: str = 'efficientnet_lite0', merged_windows: Keep = 103 / 256,
    auxiliary_head: str = 'atm', refinement: str = 'none',
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Return `spec_table` of each of the paper's variants, with the same keep at each pruning layer."""
    spec = form_spec(
        backbone, classes, size_hw, stem=stem, policy=policy, decoder=decoder or Decoder(num_heads=1),
        auxiliary_head=auxiliary_head, refinement=refinement,
    )  # fmt: skip
    return spec_table(spec, size_hw, TokenBudget(keep=(keep,), merged_windows=merged_windows))
