"""The tables of `hybrid_seg flops`, as text or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybrid_seg_ros.evaluation.flops import COMPONENTS
from hybrid_seg_ros.evaluation.paper_flops import KEEP_LABEL, PAPER_LABEL, PaperComparison, general_notes
from hybrid_seg_ros.evaluation.text_table import format_gflops, format_table
from hybrid_seg_ros.model_spec import Keep

Table = Mapping[str, Mapping[str, Any]]
"""A row by variant, as `spec_table` gives it."""


def format_components(table: Table, markdown: bool = False) -> str:
    """Return a line per variant: tokens entering and kept, GFLOPs per component that any variant has, total."""
    used = [name for name in COMPONENTS if any(row[name] for row in table.values())]
    lines = []
    for name, row in table.items():
        tokens = ' → '.join(str(n) for key, n in row.items() if key == 'tokens' or key.startswith('kept@'))
        share = f'{100 * row["total"] / table["dense"]["total"]:.0f} %' if 'dense' in table else '–'
        counts = [format_gflops(row[component]) if row[component] else '–' for component in used]
        lines.append([name, tokens, *counts, format_gflops(row['total']), share])
    columns = ['variant', 'tokens', *(name.replace('_', ' ') for name in used), 'total', 'of dense']
    return format_table(columns, lines, markdown)


def format_layers(table: Table, markdown: bool = False) -> str:
    """Return a line per step, in order, with a column of GFLOPs per variant; the rows of `table` have 'layers'."""
    steps = ordered_steps(table)
    lines = [[step, *(format_gflops(row['layers'].get(step)) for row in table.values())] for step in steps]
    lines.append(['total', *(format_gflops(row['total']) for row in table.values())])
    return format_table(['step', *table], lines, markdown)


def ordered_steps(table: Table) -> list[str]:
    """Return the steps of all variants, each once, in the order in which they run."""
    steps: list[str] = []
    for row in table.values():
        position = 0
        for step in row['layers']:
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
