"""Tables for people to read, in a terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False, names: int = 1) -> str:
    """Return lines without a newline at the end; the first `names` columns hold names, the others numbers."""
    if markdown:
        rule = ['---'] * names + ['---:'] * (len(columns) - names)
        return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (columns, rule, *rows))
    widths = [max(len(line[index]) for line in (columns, *rows)) for index in range(len(columns))]
    lines = []
    for line in (columns, *rows):
        fitted = [cell.ljust(width) if index < names else cell.rjust(width)
                  for index, (cell, width) in enumerate(zip(line, widths))]  # fmt: skip
        lines.append('  '.join(fitted).rstrip())
    return '\n'.join(lines)


def format_tokens(stages: Mapping[str, float], arrow: str = ' → ') -> str:
    """Return the tokens of each stage (TokenReport.stages, or means of it), from those that enter the encoder on."""
    return arrow.join(f'{count:.0f}' for stage, count in stages.items() if stage != 'total')


def format_gflops(gflops: Optional[float]) -> str:
    """Return GFLOPs with at least three digits; a dash where there is none."""
    if gflops is None:
        return '–'
    return f'{gflops:.2f}' if gflops >= 1 else f'{gflops:.3f}'
