"""What `hybrid_seg paper` measured, as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Any, Optional

from hybrid_seg_ros.evaluation.benchmark_rows import DENSE
from hybrid_seg_ros.evaluation.paper.measured_rows import PaperRow
from hybrid_seg_ros.evaluation.paper.results import PaperTables
from hybrid_seg_ros.evaluation.paper.token_pictures import TokenFigures
from hybrid_seg_ros.evaluation.paper_figures import PAPER_FPS, PAPER_GFLOPS
from hybrid_seg_ros.evaluation.text_table import format_table

TABLE_COLUMNS = ('variant', 'reduces by', 'mIoU %', 'GFLOPs', 'without policy', 'tokens', 'ms', 'FPS')
PAPER_NAMES = {'vit_tiny': 'ViT-T', 'vit_base': 'ViT-B'}


def to_json(tables: PaperTables, figures: TokenFigures) -> str:
    """Return everything as JSON, and which images the figures show."""
    content = dataclasses.asdict(tables)
    content['verdict'] = tables.verdict()
    content['slower'] = [str(each) for each in tables.slower]
    content['layers'] = {each.pop('variant'): each for each in content['layers']}
    content['images'] = {'merging': figures.merging, 'pruning': figures.pruning}
    for name in ('merged', 'easy', 'hard'):
        content['images'][name] = [
            {'name': each.name, 'tokens': each.tokens, 'miou': each.miou} for each in getattr(figures, name)
        ]
    return json.dumps(_without_nan(content), indent=2) + '\n'


def to_csv(tables: PaperTables) -> str:
    """Return the rows as CSV: a column per field, tokens by stage in columns of their own."""
    stages = list(dict.fromkeys(stage for row in tables.rows for stage in row.tokens))
    names = [field.name for field in dataclasses.fields(PaperRow) if field.name != 'tokens']
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([*names, *(f'tokens_{stage}' for stage in stages)])
    for row in tables.rows:
        values = {**vars(row), 'prune_layers': '+'.join(map(str, row.prune_layers))}
        writer.writerow([*(values[name] for name in names), *(row.tokens.get(stage, '') for stage in stages)])
    return text.getvalue()


def to_markdown(tables: PaperTables) -> str:
    """Return the tables for a document."""
    of_variants = format_table(TABLE_COLUMNS, table_cells(tables.rows), markdown=True, names=2)
    beside_paper = format_table(paper_columns(), paper_cells(tables.rows), markdown=True)
    return f'{of_variants}\n\n{beside_paper}\n\n{tables.verdict()}\n'


def table_cells(rows: Sequence[PaperRow]) -> list[tuple[str, ...]]:
    """Return the cells of tables 1.1 and 1.2, under TABLE_COLUMNS; in brackets, what changes from dense."""
    return [
        (
            row.variant,
            ', '.join(['merging'] * row.merges + ['pruning'] * bool(row.prune_layers)),
            f'{row.miou:.2f}' + _unless_dense(row, f' ({round(row.miou_change, 2) + 0.0:+.2f})'),
            f'{row.gflops:.2f}' + _unless_dense(row, f' ({row.gflops_change:+.0f} %)'),
            f'{row.gflops_without_policy:.2f}',
            ' > '.join(f'{count:.0f}' for count in list(row.tokens.values())[1:]),
            f'{row.median_ms:.1f}',
            f'{row.fps:.1f}' + _unless_dense(row, f' ({row.fps_to_dense:.2f}x)'),
        )
        for row in rows
    ]  # fmt: skip


def paper_columns() -> tuple[str, ...]:
    """Return the columns of `paper_cells`."""
    names = PAPER_NAMES.values()
    return ('variant', 'GFLOPs, here', *(f'{name}, paper' for name in names),
            'FPS, here', *(f'{name}, paper' for name in names))  # fmt: skip


def paper_cells(rows: Sequence[PaperRow]) -> list[tuple[str, ...]]:
    """Return what was measured beside what the paper reports, each with its relation to the dense variant."""
    cells = []
    for row in rows:
        gflops = [PAPER_GFLOPS[name].get(row.variant) for name in PAPER_NAMES]
        fps = [PAPER_FPS[name].get(row.variant) for name in PAPER_NAMES]
        dense_gflops = [PAPER_GFLOPS[name][DENSE] for name in PAPER_NAMES]
        dense_fps = [PAPER_FPS[name][DENSE] for name in PAPER_NAMES]
        cells.append((
            row.variant,
            f'{row.gflops_without_policy:.2f}' + _unless_dense(row, f' ({_without_policy_share(row, rows):.0f} %)'),
            *(_with_relation(row, value, dense, '{:.0f} %', 100) for value, dense in zip(gflops, dense_gflops)),
            f'{row.fps:.1f}' + _unless_dense(row, f' ({row.fps_to_dense:.2f}x)'),
            *(_with_relation(row, value, dense, '{:.2f}x', 1) for value, dense in zip(fps, dense_fps)),
        ))  # fmt: skip
    return cells


def _without_policy_share(row: PaperRow, rows: Sequence[PaperRow]) -> float:
    dense = next(each for each in rows if each.variant == DENSE)
    return 100.0 * row.gflops_without_policy / dense.gflops_without_policy


def _with_relation(row: PaperRow, value: Optional[float], dense: float, form: str, unit: float) -> str:
    """Return a figure of the paper and how it relates to its dense one; a dash where it reports none."""
    return '-' if value is None else f'{value:.1f}' + _unless_dense(row, f' ({form.format(unit * value / dense)})')


def _unless_dense(row: PaperRow, text: str) -> str:
    return '' if row.variant == DENSE else text


def _without_nan(value: Any) -> Any:
    """Return the value with None for each number that is none, an image without labels say: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
