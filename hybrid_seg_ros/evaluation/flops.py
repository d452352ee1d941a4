"""What a variant costs, everything counted, in fvcore's convention: GFLOPs per component.

Token counts enter the formulas (flop_formulas.py), so that threshold pruning is counted per image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from hybrid_seg_ros.evaluation.layer_flops import count_steps
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


def count_flops(
    spec: ModelSpec, size_hw: tuple[int, int], variant: Variant, entering: float,
    kept: Sequence[tuple[int, float]] = (),
) -> FlopCount:  # fmt: skip
    """Count one image of `size_hw` of which `entering` tokens enter the encoder and `kept` (layer, tokens) go on."""
    counts = dict.fromkeys((field.name for field in dataclasses.fields(FlopCount)), 0.0)
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


def flops_table(
    backbone: Backbone, classes: int, size_hw: tuple[int, int], keep: Keep, decoder: Optional[Decoder] = None,
    stem: str = 'patch', policy: str = 'efficientnet_lite0', merged_windows: Keep = 103 / 256,
    auxiliary_head: str = 'atm', refinement: str = 'none',
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Return GFLOPs per component for each of the paper's variants, with a fixed keep at each pruning layer."""
    names = tuple(f'class {index}' for index in range(classes))
    spec = ModelSpec(
        'flops', backbone, LabelSpace(names, distinct_colors(classes)), size_hw, stem=stem, policy=policy,
        decoder=decoder or Decoder(), auxiliary_head=auxiliary_head, refinement=refinement,
    )  # fmt: skip
    budget = TokenBudget(keep=(keep,), merged_windows=merged_windows)
    table = {}
    for name in spec.legal_variants():
        variant = Variant.parse(name)
        entering, kept = expected_tokens(spec, size_hw, variant, budget)
        counts = count_flops(spec, size_hw, variant, entering, kept).gflops()
        table[name] = {'tokens': entering, **{f'kept@{layer}': n for layer, n in kept}, **counts}
    return table
