"""Picture of a benchmark: a panel per model, in it a bar per row, grouped by backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybrid_seg_ros.evaluation.benchmark_report import Benchmark
from hybrid_seg_ros.evaluation.benchmark_rows import BenchmarkRow
from hybrid_seg_ros.evaluation.figures import (
    GREY,
    OTHER_STYLE,
    SIZE_PX,
    SMALL,
    STYLES,
    TEXT,
    new_figure,
    save_figure,
    style_axis,
)

COLUMNS = 2
LINE_PX = 34
"""Height of a bar with its distance to the next."""
PANEL_PX, TOP_PX = 110, 90
"""Height of what is above and below the bars of a panel, and of the picture's own heading."""
BAR = 0.74
COLORS = {'dense': '#444444', 'cts': '#56B4E9', **{variant: color for variant, (color, _) in STYLES.items()}}
STEPS = (('preprocess', 0.35), ('network', 1.0), ('postprocess', 0.35))
"""From left to right, with the opacity of each."""


def draw_benchmark(benchmark: Benchmark, path: Path) -> None:
    """Draw the median milliseconds of each row as a PNG, written whole or not at all.

    A bar is as long as the row's median; its pale ends are pre- and postprocessing. Behind it stands how many times as
    fast it is as the dense variant of the same backend.
    """
    models = list(dict.fromkeys(row.model for row in benchmark.rows))
    columns = min(COLUMNS, len(models))
    grid = [models[start : start + columns] for start in range(0, len(models), columns)]
    lines = [max(_count_lines(_rows_of(benchmark, model)) for model in models_beside) for models_beside in grid]
    heights = [PANEL_PX + LINE_PX * count for count in lines]
    size_px = (SIZE_PX[0], TOP_PX + sum(heights))
    figure = new_figure(size_px)
    figure.text(0.012, 1 - 14 / size_px[1], benchmark.heading(), fontsize=TEXT - 1, va='top', wrap=True)
    top = TOP_PX
    for models_beside, height, count in zip(grid, heights, lines):
        for column, model in enumerate(models_beside):
            left = (column * SIZE_PX[0] / columns + 150) / size_px[0]
            width = (SIZE_PX[0] / columns - 165) / size_px[0]
            bars_px = LINE_PX * count
            panel = figure.add_axes((left, 1 - (top + 40 + bars_px) / size_px[1], width, bars_px / size_px[1]))
            _draw_panel(panel, model, _rows_of(benchmark, model), count)
        top += height
    save_figure(figure, path)


def _draw_panel(panel: Any, model: str, rows: Sequence[BenchmarkRow], lines: int) -> None:
    style_axis(panel)
    panel.set_title(model, fontsize=TEXT, fontweight='bold', loc='left')
    panel.set_xlim(0, 1.3 * max(row.median_ms for row in rows))  # on the right: the texts behind the bars
    panel.set_ylim(lines - 0.4, -0.6)
    panel.set_xlabel('ms per frame (pale: pre- and postprocessing); x: times as fast as dense', fontsize=SMALL)
    panel.tick_params(axis='y', length=0)
    ticks, line = {}, 0
    for group in _groups(rows):
        panel.annotate(f'{group[0].backend} {group[0].dtype}', (0, line), xytext=(4, 0), textcoords='offset points',
                       fontsize=SMALL, fontweight='bold', color=GREY, va='center')  # fmt: skip
        for row in group:
            line += 1
            ticks[line] = row.variant
            _draw_bar(panel, row, line)
        line += 1
    panel.set_yticks(list(ticks), list(ticks.values()))
    for label in panel.get_yticklabels():
        label.set_color(_color(label.get_text()))


def _draw_bar(panel: Any, row: BenchmarkRow, line: int) -> None:
    steps_ms = [row.parts_ms[step] for step, _ in STEPS]
    scale = row.median_ms / sum(steps_ms)  # the steps' medians add up to about the median of the sum
    left = 0.0
    for (_, opacity), step_ms in zip(STEPS, steps_ms):
        panel.barh(line, scale * step_ms, BAR, left, color=_color(row.variant), alpha=opacity, linewidth=0)
        left += scale * step_ms
    faster = '' if row.ratio_to_dense is None or row.variant == 'dense' else f'   {row.ratio_to_dense:.2f}x'
    panel.annotate(f'{row.median_ms:.3g} ms{faster}' if row.median_ms < 100 else f'{row.median_ms:.0f} ms{faster}',
                   (row.median_ms, line), xytext=(4, 0), textcoords='offset points', fontsize=SMALL, va='center')


def _color(variant: str) -> str:
    return COLORS.get(variant, OTHER_STYLE[0])


def _rows_of(benchmark: Benchmark, model: str) -> list[BenchmarkRow]:
    return [row for row in benchmark.rows if row.model == model]


def _groups(rows: Sequence[BenchmarkRow]) -> list[list[BenchmarkRow]]:
    keys = dict.fromkeys((row.backend, row.dtype) for row in rows)
    return [[row for row in rows if (row.backend, row.dtype) == key] for key in keys]


def _count_lines(rows: Sequence[BenchmarkRow]) -> int:
    return len(rows) + len(_groups(rows))
