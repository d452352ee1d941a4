"""Tables for people to read, in a terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Return lines without a newline at the end; the first column names the rows, the others are numbers."""
    if markdown:
        lines = [columns, ['---', *['---:'] * (len(columns) - 1)], *rows]
        return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    widths = [max(len(line[index]) for line in (columns, *rows)) for index in range(len(columns))]
    return '\n'.join(
        line[0].ljust(widths[0]) + ''.join('  ' + cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
        for line in (columns, *rows)
    )


def format_gflops(gflops: Optional[float]) -> str:
    """Return GFLOPs with at least three digits; a dash where there is none."""
    if gflops is None:
        return '–'
    return f'{gflops:.2f}' if gflops >= 1 else f'{gflops:.3f}'
