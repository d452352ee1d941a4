"""The tables of `hybrid_seg flops`, as text or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hybrid_seg_ros.evaluation.flops import VariantCost, used_components
from hybrid_seg_ros.evaluation.paper_flops import KEEP_LABEL, PAPER_LABEL, PaperComparison, general_notes
from hybrid_seg_ros.evaluation.text_table import format_gflops, format_table
from hybrid_seg_ros.model_spec import Keep


def format_components(costs: Mapping[str, VariantCost], markdown: bool = False) -> str:
    """Return a line per variant: tokens entering and kept, GFLOPs per component that any variant has, total."""
    used = used_components(costs.values())
    lines = []
    for name, cost in costs.items():
        tokens = ' → '.join(str(count) for count in (cost.tokens, *(count for _, count in cost.kept)))
        share = f'{100 * cost.gflops / costs["dense"].gflops:.0f} %' if 'dense' in costs else '–'
        gflops = cost.counts.gflops()
        counts = [format_gflops(gflops[component] or None) for component in used]
        lines.append([name, tokens, *counts, format_gflops(cost.gflops), share])
    columns = ['variant', 'tokens', *(name.replace('_', ' ') for name in used), 'total', 'of dense']
    return format_table(columns, lines, markdown)


def format_layers(costs: Mapping[str, VariantCost], markdown: bool = False) -> str:
    """Return a line per step, in order, with a column of GFLOPs per variant."""
    columns = [cost.gflops_by_step() for cost in costs.values()]
    lines = [[step, *(format_gflops(column.get(step)) for column in columns)] for step in ordered_steps(columns)]
    lines.append(['total', *(format_gflops(cost.gflops) for cost in costs.values())])
    return format_table(['step', *costs], lines, markdown)


def ordered_steps(columns: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the steps of all variants, which are the keys, each once, in the order in which they run."""
    steps: list[str] = []
    for column in columns:
        position = 0
        for step in column:
            if step not in steps:
                steps.insert(position, step)
            position = steps.index(step) + 1
    return steps


def format_comparisons(comparisons: Sequence[PaperComparison], keep: Keep, markdown: bool = False) -> str:
    """Return a table per backbone with a column per variant, each with its note, and what holds for all below."""
    tables = [_format_comparison(comparison, markdown) for comparison in comparisons]
    notes = [f'- {note}' for note in general_notes(keep)]
    return '\n\n'.join([*tables, '\n'.join(notes)])


def _format_comparison(comparison: PaperComparison, markdown: bool) -> str:
    variants = list(next(iter(comparison.rows.values())))
    lines = [
        [label, *(f'{row[name]:.1f}' if label == PAPER_LABEL else format_gflops(row[name]) for name in variants)]
        for label, row in comparison.rows.items()
    ]
    keeps = [comparison.keeps.get(name) for name in variants]
    lines.append([KEEP_LABEL, *('–' if keep is None else f'{keep:.2f}' for keep in keeps)])
    table = format_table(['GFLOPs, ' + comparison.backbone, *variants], lines, markdown)
    return f'{table}\n\n{comparison.note}'
