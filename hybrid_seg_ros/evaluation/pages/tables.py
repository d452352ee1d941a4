"""Tables in a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, TypeVar

Row = TypeVar('Row')


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


def fill_columns(columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the headings of a table and its cells; a column in which no row has anything is left out."""
    texts = {name: [text(row) for row in rows] for name, text in columns.items()}
    filled = {name: column for name, column in texts.items() if any(column)}
    return list(filled), [list(cells) for cells in zip(*filled.values())]


def format_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return CSV with a column for each key; None, and what a row does not have, is an empty cell.

    Where values are mappings there is a column for each of their keys: `tokens` becomes tokens_total and so on.
    """
    columns: dict[str, tuple[str, Optional[str]]] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        mappings = [row[key] for row in rows if isinstance(row.get(key), Mapping)]
        parts = {f'{key}_{part}': (key, part) for mapping in mappings for part in mapping}
        columns.update(parts if mappings else {key: (key, None)})
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    for row in rows:
        writer.writerow([row.get(key) if part is None else (row.get(key) or {}).get(part)
                         for key, part in columns.values()])  # fmt: skip
    return text.getvalue()


def format_tokens(stages: Mapping[str, float], arrow: str = ' → ') -> str:
    """Return the tokens of each stage (TokenReport.stages, or means of it), from those that enter the encoder on."""
    return arrow.join(f'{count:.0f}' for stage, count in stages.items() if stage != 'total')


def format_gflops(gflops: Optional[float]) -> str:
    """Return GFLOPs with at least three digits; a dash where there is none."""
    if gflops is None:
        return '–'
    return f'{gflops:.2f}' if gflops >= 1 else f'{gflops:.3f}'


def format_number(value: Optional[float], digits: int = 1) -> str:
    """Return a number with so many digits behind the point; nothing where there is none."""
    return '' if value is None else f'{value:.{digits}f}'
