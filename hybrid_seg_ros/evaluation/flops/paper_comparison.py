"""Our GFLOPs beside those that the paper reports: same backbone, size, number of classes and merged windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from hybrid_seg_ros.evaluation.flops.count import VariantCost, count_flops, count_variants, expected_tokens, form_spec
from hybrid_seg_ros.evaluation.flops.formulas import auxiliary_head_flops
from hybrid_seg_ros.evaluation.flops.paper import PAPER_CLASSES, PAPER_FORM, PAPER_GFLOPS, PAPER_SIZE_HW
from hybrid_seg_ros.model_spec import BACKBONES, Decoder, Keep, ModelSpec, TokenBudget, Variant

FAST_FORM = {**PAPER_FORM, 'policy': 'patch_mlp', 'auxiliary_head': 'light'}
"""The form whose policy network and auxiliary heads cost next to nothing, as in config/benchmark."""
PAPER_LABEL, KEEP_LABEL = 'the paper', "keep for the paper's total"
STEPS = 40
"""Halvings of the interval in which a keep is looked for."""


@dataclass(frozen=True)
class PaperComparison:
    """Rows of GFLOPs by variant, in `rows[label][variant]`, None where there is none; and `keeps[variant]`.

    Those are the shares of tokens, the same at each pruning layer, at which our count without the policy network equals
    the paper's total: None where no share does. `note` says what can be told about the policy network.
    """

    backbone: str
    rows: dict[str, dict[str, Optional[float]]]
    keeps: dict[str, Optional[float]]
    note: str


def compare_with_paper(backbone: str, keep: Keep, decoder: Decoder) -> PaperComparison:
    """Count the variants of the paper's tables for one of its backbones; `keep` holds for our rows that prune."""
    if backbone not in PAPER_GFLOPS:
        raise ValueError(f'the paper has no figures of {backbone}; expected {", ".join(PAPER_GFLOPS)}')
    reported = PAPER_GFLOPS[backbone]
    variants = [Variant.parse(name) for name in reported]
    budget = TokenBudget(keep=(keep,))

    def count(form: dict[str, str]) -> tuple[ModelSpec, dict[str, VariantCost]]:
        spec = form_spec(BACKBONES[backbone], PAPER_CLASSES, PAPER_SIZE_HW, decoder=decoder, **form)
        return spec, count_variants(spec, PAPER_SIZE_HW, budget, variants)

    spec, ours = count(PAPER_FORM)
    _, fast = count(FAST_FORM)
    without = {name: cost.gflops - cost.gflops_of('policy') for name, cost in ours.items()}
    every_head = {
        str(variant): None if variant.prune_layers
        else without[str(variant)] + 2 * auxiliary_head_flops(spec, ours[str(variant)].tokens) / 1e9
        for variant in variants
    }  # fmt: skip
    rows: dict[str, dict[str, Optional[float]]] = {
        PAPER_LABEL: dict(reported),
        "ours in the paper's form, without the policy network": without,
        'the same, both auxiliary heads counted although nothing prunes': every_head,
        "ours in the paper's form, everything that runs": {name: cost.gflops for name, cost in ours.items()},
        'ours in the fast form, everything that runs': {name: cost.gflops for name, cost in fast.items()},
    }
    keeps = {str(v): keep_for_total(spec, v, reported[str(v)]) for v in variants if v.prune_layers}
    return PaperComparison(backbone, rows, keeps, _policy_note(ours['cts'], reported['cts']))


def general_notes(keep: Keep) -> tuple[str, ...]:
    """Say what the rows leave open, for every backbone."""
    return (
        "dense and cts differ from the paper's: how its heads are made was not identified. No natural choice that was "
        'tried gives its totals for both ViT-Tiny and ViT-Base.',
        f'Variants that prune: ours at keep {keep}. How many tokens were kept for the paper is not known, so that '
        'these are no comparison.',
        f'{KEEP_LABEL}: the share of tokens kept at each pruning layer at which our count without the policy network '
        "is the paper's; a dash where none is. It holds for our heads, and is no figure of the paper.",
    )


def keep_for_total(spec: ModelSpec, variant: Variant, gflops: float) -> Optional[float]:
    """Return the share of tokens, the same at each pruning layer, that gives a total without the policy network.

    None if no share in (0, 1] does. Tokens count as real numbers, not rounded.
    """
    entering, _ = expected_tokens(spec, PAPER_SIZE_HW, variant, TokenBudget(keep=(1.0,)))

    def total(share: float) -> float:
        kept = [(layer, entering * share ** (index + 1)) for index, layer in enumerate(variant.prune_layers)]
        cost = count_flops(spec, PAPER_SIZE_HW, variant, entering, kept)
        return cost.gflops - cost.gflops_of('policy')

    return _root(lambda share: total(share) - gflops)


def _root(function: Callable[[float], float]) -> Optional[float]:
    """Return where a growing function of [0, 1] is 0, by bisection; None if it is nowhere."""
    low, high = 0.0, 1.0
    if function(low) > 0 or function(high) < 0:
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return high


def _policy_note(merged: VariantCost, paper: float) -> str:
    """Say whether the paper's total for cts can have the policy network in it; `merged` is our count."""
    blocks, policy = merged.gflops_of('blocks'), merged.gflops_of('policy')
    others = merged.gflops - blocks - policy
    sums = f'cts: the blocks alone take {blocks:.2f} GFLOPs, the policy network {policy:.2f}, all else {others:.2f}'
    if blocks + policy > paper:
        return f"{sums}. The first two exceed the paper's {paper}, so its count leaves the policy network out."
    return f"{sums}. Whether the paper's {paper} has the policy network in it, this row does not tell."
