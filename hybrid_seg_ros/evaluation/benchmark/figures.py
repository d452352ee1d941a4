"""Figures of a benchmark: a bar per row, grouped by backend, and milliseconds over GFLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybrid_seg_ros.evaluation.benchmark.plan import BASELINES, ONNXRUNTIME_PLAIN, PLAIN, TORCH_COMPILE, Subject
from hybrid_seg_ros.evaluation.benchmark.results import DENSE, Benchmark, BenchmarkRow
from hybrid_seg_ros.evaluation.pages.figures import (
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
from hybrid_seg_ros.evaluation.pages.label_placement import LabelPlacer

COLUMNS = 2
LINE_PX = 34
"""Height of a bar with its distance to the next."""
PANEL_PX, TOP_PX = 120, 60
"""Height of what is above and below the bars of a panel, and of the picture's own heading."""
BAR = 0.74
CHARACTER_PX = 9.6
"""Width of a character of the texts behind the bars, on average."""
COLORS = {'dense': '#444444', 'cts': '#56B4E9', **{variant: color for variant, (color, _) in STYLES.items()}}
STEPS = (('preprocess', 0.35), ('network', 1.0), ('postprocess', 0.35))
"""From left to right, with the opacity of each."""


def draw_benchmark(benchmark: Benchmark, path: Path) -> None:
    """Draw the median milliseconds of each row as a PNG, written whole or not at all."""
    save_figure(bar_figure(benchmark, benchmark.subjects), path)


def bar_figure(benchmark: Benchmark, subjects: Sequence[Subject], heading: bool = True) -> Any:
    """Draw the median milliseconds of the rows of some models; `heading` says above them what was measured, on what.

    A bar is as long as the row's median; its pale ends are pre- and postprocessing. Behind it stands how many times as
    fast it is as the dense variant of the same backend, as the plain way, and as the best alternative.
    """
    columns = min(COLUMNS, len(subjects))
    grid = [subjects[start : start + columns] for start in range(0, len(subjects), columns)]
    lines = {subject: _count_lines(benchmark.rows_of(subject)) for subject in subjects}
    heights = [PANEL_PX + LINE_PX * max(lines[subject] for subject in beside) for beside in grid]
    above_px = TOP_PX if heading else 0
    size_px = (SIZE_PX[0], above_px + sum(heights))
    figure = new_figure(size_px)
    if heading:
        figure.text(0.012, 1 - 14 / size_px[1], benchmark.heading(), fontsize=TEXT - 1, va='top', wrap=True)
    width_px = SIZE_PX[0] / columns - 165
    top_px = above_px + 50
    for beside, height in zip(grid, heights):
        for column, subject in enumerate(beside):
            bars_px = LINE_PX * lines[subject]
            left = (column * SIZE_PX[0] / columns + 150) / size_px[0]
            bottom = 1 - (top_px + bars_px) / size_px[1]
            panel = figure.add_axes((left, bottom, width_px / size_px[0], bars_px / size_px[1]))
            _draw_panel(panel, str(subject), benchmark.rows_of(subject), lines[subject], width_px)
        top_px += height
    return figure


def _draw_panel(panel: Any, title: str, rows: Sequence[BenchmarkRow], lines: int, width_px: float) -> None:
    style_axis(panel)
    panel.set_title(title, fontsize=TEXT, fontweight='bold', loc='left')
    room = [max(0.2, 1 - (CHARACTER_PX * len(_text(row)) + 20) / width_px) for row in rows]  # beside the row's text
    panel.set_xlim(0, max(row.median_ms / share for row, share in zip(rows, room)))
    panel.set_ylim(lines - 0.4, -0.6)
    panel.set_xlabel('ms per frame; pale: pre- and postprocessing', fontsize=SMALL)
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
    panel.annotate(_text(row), (row.median_ms, line), xytext=(4, 0), textcoords='offset points', fontsize=SMALL,
                   va='center')  # fmt: skip


def _text(row: BenchmarkRow) -> str:
    """Return what stands behind a bar: its length, and how many times as fast it is as what it is compared with."""
    text = f'{row.median_ms:.3g} ms' if row.median_ms < 100 else f'{row.median_ms:.0f} ms'
    if row.ratio_to_dense is not None and row.variant != DENSE:
        text += f'  {row.ratio_to_dense:.2f}x dense'
    if row.ratio_to_plain is not None and row.backend != PLAIN:
        text += f'  {row.ratio_to_plain:.2f}x plain'
    if row.ratio_to_alternative is not None and row.backend not in BASELINES:
        text += f'  {row.ratio_to_alternative:.2f}x {row.alternative}'
    return text


def _color(variant: str) -> str:
    return COLORS.get(variant, OTHER_STYLE[0])


def _groups(rows: Sequence[BenchmarkRow]) -> list[list[BenchmarkRow]]:
    keys = dict.fromkeys((row.backend, row.dtype) for row in rows)
    return [[row for row in rows if (row.backend, row.dtype) == key] for key in keys]


def _count_lines(rows: Sequence[BenchmarkRow]) -> int:
    return len(rows) + len(_groups(rows))


# Okabe and Ito's, as in pages/figures.py
BACKEND_COLORS = {'pytorch': '#D55E00', 'onnxruntime': '#0072B2', 'openvino': '#009E73', 'tensorrt': '#A0457E',
          PLAIN: '#444444', TORCH_COMPILE: '#E69F00', ONNXRUNTIME_PLAIN: '#56B4E9'}  # fmt: skip
MARKERS = {'float32': 'o', 'bfloat16': 's', 'float16': '^'}
HEADROOM = 0.14
"""Of the range of milliseconds, above it: for the variants' names."""


def gflops_figure(rows: Sequence[BenchmarkRow]) -> Any:
    """Draw the rows of one model at one size: a line per backend and dtype, from the cheapest variant to the dearest.

    A dotted line goes from each backend's dense variant to nothing: on it the time would fall as the GFLOPs do.
    """
    figure = new_figure()
    panel = figure.add_axes((0.06, 0.11, 0.925, 0.85))
    style_axis(panel)
    panel.set_xlabel('GFLOPs per frame, everything counted', fontsize=TEXT)
    panel.set_ylabel('ms per frame', fontsize=TEXT)
    _limit(panel, rows)
    labels = LabelPlacer(panel, figure.canvas.get_renderer())
    groups: dict[tuple[str, str], list[BenchmarkRow]] = {}
    for row in sorted(rows, key=lambda row: row.gflops):
        groups.setdefault((row.backend, row.dtype), []).append(row)
    _draw_variants(panel, rows, labels)
    for (backend, dtype), group in groups.items():
        x, y = [row.gflops for row in group], [row.median_ms for row in group]
        panel.plot(x, y, color=BACKEND_COLORS[backend], marker=MARKERS[dtype], markersize=6, linewidth=1.8, zorder=3)
        labels.avoid_line(x, y)
        dense = next((row for row in group if row.variant == DENSE), None)
        if dense is not None and len(group) > 1:
            panel.plot((0, dense.gflops), (0, dense.median_ms), color=BACKEND_COLORS[backend], linewidth=1, alpha=0.7,
                       linestyle=(0, (1, 2)), zorder=1)  # fmt: skip
    for (backend, dtype), group in groups.items():
        labels.place(f'{backend} {dtype}', group[-1].gflops, group[-1].median_ms, color=BACKEND_COLORS[backend],
                     fontsize=TEXT - 1, fontweight='bold')  # fmt: skip
        if backend == PLAIN:  # its GFLOPs are those of the paper's form
            for row in group[:-1]:
                labels.place(row.variant, row.gflops, row.median_ms, color=BACKEND_COLORS[backend], fontsize=SMALL)
    return figure


def _draw_variants(panel: Any, rows: Sequence[BenchmarkRow], labels: LabelPlacer) -> None:
    """Name the model's variants where their GFLOPs are."""
    for variant, gflops in {row.variant: row.gflops for row in rows if row.backend not in BASELINES}.items():
        panel.axvline(gflops, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        labels.avoid_line([gflops, gflops], list(panel.get_ylim()))
        panel.annotate(variant, (gflops, 1), xycoords=panel.get_xaxis_transform(), xytext=(-4, -2),
                       textcoords='offset points', ha='right', va='top', fontsize=TEXT, color=GREY)  # fmt: skip


def _limit(panel: Any, rows: Sequence[BenchmarkRow]) -> None:
    """Leave room right and left for texts, and above for the variants' names; time starts at nothing."""
    low, high = min(row.gflops for row in rows), max(row.gflops for row in rows)
    span = max(high - low, 0.2 * high)
    panel.set_xlim(max(0.0, low - 0.25 * span), high + 0.3 * span)
    panel.set_ylim(0, (1 + HEADROOM) * max(row.median_ms for row in rows))
