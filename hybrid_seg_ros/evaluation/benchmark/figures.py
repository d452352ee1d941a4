"""Figures of a benchmark: a bar per row, grouped by backend, and milliseconds over GFLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybrid_seg_ros.evaluation.benchmark.plan import BASELINES, ONNXRUNTIME_PLAIN, PLAIN, TORCH_COMPILE, SizedModel
from hybrid_seg_ros.evaluation.benchmark.results import DENSE, Benchmark, BenchmarkRow
from hybrid_seg_ros.evaluation.pages.bars import Bar, Line, draw_bars
from hybrid_seg_ros.evaluation.pages.figures import (
    GREY,
    SMALL,
    TEXT,
    LabelPlacer,
    new_figure,
    style_axis,
    variant_color,
)

STEPS = (('preprocess', 0.35), ('network', 1.0), ('postprocess', 0.35))
"""Of a bar, from left to right, with the opacity of each."""
# Okabe and Ito's, as in pages/figures.py
BACKEND_COLORS = {'pytorch': '#D55E00', 'onnxruntime': '#0072B2', 'openvino': '#009E73', 'tensorrt': '#A0457E',
          PLAIN: '#444444', TORCH_COMPILE: '#E69F00', ONNXRUNTIME_PLAIN: '#56B4E9'}  # fmt: skip
MARKERS = {'float32': 'o', 'bfloat16': 's', 'float16': '^'}
HEADROOM = 0.14
"""Of the range of milliseconds, above it: for the variants' names."""


def bar_figure(benchmark: Benchmark, models: Sequence[SizedModel], heading: bool = True) -> Any:
    """Draw the median milliseconds of the rows of some models; `heading` says above them what was measured, on what.

    A bar is as long as the row's median; its pale ends are pre- and postprocessing. Behind it stands how many times as
    fast it is as the dense variant of the same backend, as the plain way, and as the best alternative.
    """
    panels = {}
    for model in models:
        lines: list[Line] = []
        for (backend, dtype), group in _by_backend(benchmark.rows_of(model)).items():
            lines += [f'{backend} {dtype}', *map(_bar, group)]
        panels[str(model)] = lines
    unit = 'ms per frame; pale: pre- and postprocessing'
    return draw_bars(panels, unit, benchmark.heading() if heading else '')


def _bar(row: BenchmarkRow) -> Bar:
    color = variant_color(row.variant)
    steps_ms = [row.parts_ms[step] for step, _ in STEPS]
    scale = row.median_ms / sum(steps_ms)  # the steps' medians add up to about the median of the sum
    parts = [(color, opacity, scale * step_ms) for (_, opacity), step_ms in zip(STEPS, steps_ms)]
    return Bar(row.variant, parts, _text(row), color)


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


def _by_backend(rows: Sequence[BenchmarkRow]) -> dict[tuple[str, str], list[BenchmarkRow]]:
    groups: dict[tuple[str, str], list[BenchmarkRow]] = {}
    for row in rows:
        groups.setdefault((row.backend, row.dtype), []).append(row)
    return groups


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
    groups = _by_backend(sorted(rows, key=lambda row: row.gflops))
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
