"""Figures of a video: per class, over time, and how long frames took. matplotlib is imported to draw one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from hybrid_seg_ros.evaluation.film.frame import FrameRecord
from hybrid_seg_ros.evaluation.film.report import FilmReport, RowReport
from hybrid_seg_ros.evaluation.pages.figures import GREY, SMALL, TEXT, figure_png, new_figure, style_axis, variant_color

WIDTH_PX = 1600
_CURVE_PX = 280
_LINES = ('-', '--', ':', '-.')
"""Of the backends: the colour is the variant's."""
_LEGEND_PX, _CHARACTER_PX, _HANDLE_PX, _LEGEND_NUMBERS = 32, 11, 70, 28
"""Of a line of the legend, a character and what stands before it; and so many characters stand behind a row's name."""
_SMOOTH_FRAMES = 400
"""A longer video is drawn as means over equal stretches, with a band from the least to the greatest value."""


def plot_iou_per_class(report: FilmReport) -> bytes:
    """Draw a bar for each class and row that has ground truth, as PNG."""
    rows = [row for row in report.rows if row.iou_per_class]
    names = [name for name in rows[0].iou_per_class if any(row.iou_per_class[name] is not None for row in rows)]
    line_px = 16 * len(rows) + 14
    figure, panel = _new_panel(line_px * len(names), rows, left=150)
    height = 0.84 / len(rows)
    for index, row in enumerate(rows):
        ious = [row.iou_per_class[name] or 0.0 for name in names]
        places = np.arange(len(names)) - 0.42 + height * (index + 0.5)
        panel.barh(places, ious, height * 0.92, color=_color(row), hatch=_hatch(report, row), edgecolor='white',
                   linewidth=0, label=f'{row.name}: mIoU {row.miou:.1f} %')  # fmt: skip
        for place, iou in zip(places, ious):
            panel.annotate(f'{iou:.1f}', (iou, place), xytext=(3, 0), textcoords='offset points', fontsize=SMALL - 1,
                           va='center')  # fmt: skip
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlim(0, 112)
    panel.set_xlabel('IoU in per cent', fontsize=SMALL)
    _legend(figure, panel, report.rows)
    return figure_png(figure)


def plot_times(report: FilmReport) -> bytes:
    """Draw, for each row, the share of its frames that took at most so many milliseconds, as PNG."""
    figure, panel = _new_panel(_CURVE_PX, report.rows)
    longest = 0.0
    for row, records in zip(report.rows, report.records):
        times = np.sort([record.time_ms for record in records if record.time_ms is not None])
        if not times.size:
            continue
        shares = 100.0 * np.arange(1, times.size + 1) / times.size
        label = f'{row.name}: p50 {row.p50_ms:.1f}, p95 {row.p95_ms:.1f} ms'
        panel.step(times, shares, where='post', color=_color(row), linestyle=_line(report, row), label=label)
        panel.plot([row.p95_ms], [95], 'o', color=_color(row), markersize=4)
        longest = max(longest, float(np.percentile(times, 99.5)) * 1.15)
    panel.set_xlim(0, longest or 1.0)
    panel.set_ylim(0, 102)
    panel.axhline(95, color=GREY, linewidth=0.6, linestyle=':')
    is_live = report.mode == 'live'
    what = 'from publishing the image to the arrival of its mask' if is_live else 'from image to label map'
    panel.set_xlabel(f'ms {what}; dots: p95', fontsize=SMALL)
    panel.set_ylabel('per cent of the frames', fontsize=SMALL)
    _legend(figure, panel, report.rows)
    return figure_png(figure)


def plot_over_time(report: FilmReport, name: str, label: str, from_zero: bool = False) -> Optional[bytes]:
    """Draw a figure of the frames over time, as PNG: a field of FrameRecord; None if no frame has it.

    Of `tokens` those that enter the encoder (dashed) and those that reach its last layers.
    """
    if not any(getattr(record, name) not in (None, {}) for records in report.records for record in records):
        return None
    figure, panel = _new_panel(_CURVE_PX, report.rows)
    for row, records in zip(report.rows, report.records):
        if name == 'tokens':
            _draw_curve(panel, report, row, records, lambda record: _stage(record, 1), thin=True)
            _draw_curve(panel, report, row, records, lambda record: _stage(record, -1))
        else:
            _draw_curve(panel, report, row, records, lambda record: getattr(record, name))
    if from_zero:
        panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
    panel.set_ylabel(label, fontsize=SMALL)
    return _finish(figure, panel, report)


def _draw_curve(
    panel: Any, report: FilmReport, row: RowReport, records: Sequence[FrameRecord],
    figure_of: Callable[[FrameRecord], Optional[float]], thin: bool = False,
) -> None:  # fmt: skip
    """Draw a figure over time, through the frames that have one."""
    points = [(record.time_s, value) for record in records if (value := figure_of(record)) is not None]
    if not points:
        return
    times, values = np.array(points, np.float64).T
    style = {'color': _color(row), 'linestyle': _line(report, row), 'linewidth': 0.8 if thin else 2.0}
    if len(values) > _SMOOTH_FRAMES:
        stretches = np.array_split(np.arange(len(values)), _SMOOTH_FRAMES)
        times = np.array([times[part].mean() for part in stretches])
        low, values, high = (np.array([of(values[part]) for part in stretches]) for of in (np.min, np.mean, np.max))
        panel.fill_between(times, low, high, color=_color(row), alpha=0.12, linewidth=0)
    marker = {} if len(values) > 60 or thin else {'marker': 'o', 'markersize': 2.5}
    panel.plot(times, values, label=None if thin else row.name, **style, **marker)


def _stage(record: FrameRecord, index: int) -> Optional[float]:
    return list(record.tokens.values())[index] if record.tokens else None


def _finish(figure: Any, panel: Any, report: FilmReport) -> bytes:
    """Name the axis of time, and mark above it the frames that were dropped."""
    dropped = [[record.time_s for record in records if not record.answered] for records in report.records]
    for index, (row, times) in enumerate(zip(report.rows, dropped)):
        height = 0.012 + 0.025 * index  # of the panel
        panel.plot(times, [height] * len(times), '|', color=_color(row), markersize=4, markeredgewidth=0.8,
                   transform=panel.get_xaxis_transform(), clip_on=False)  # fmt: skip
    marks = '; marks: frames that were dropped' if any(dropped) else ''
    panel.set_xlabel(f'seconds of the video{marks}', fontsize=SMALL)
    panel.margins(x=0.01)
    _legend(figure, panel, report.rows)
    return figure_png(figure)


def _new_panel(panel_px: int, rows: Sequence[RowReport], left: int = 110) -> tuple[Any, Any]:
    """Make a panel of this height, with room for the axis below it and the names of the rows above."""
    bottom, top = 75, 20 + _LEGEND_PX * -(-len(rows) // _legend_columns(rows))
    height_px = panel_px + bottom + top
    figure = new_figure((WIDTH_PX, height_px))
    width = WIDTH_PX - left - 30
    panel = figure.add_axes((left / WIDTH_PX, bottom / height_px, width / WIDTH_PX, panel_px / height_px))
    style_axis(panel)
    return figure, panel


def _legend(figure: Any, panel: Any, rows: Sequence[RowReport]) -> None:
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc='upper right', ncol=_legend_columns(rows), fontsize=TEXT - 1, frameon=False)


def _legend_columns(rows: Sequence[RowReport]) -> int:
    """Return how many names of rows, with some numbers behind each, have room beside one another."""
    width_px = _CHARACTER_PX * (max(len(row.name) for row in rows) + _LEGEND_NUMBERS) + _HANDLE_PX
    return max(1, min(4, WIDTH_PX // width_px))


def _color(row: RowReport) -> str:
    return variant_color(row.variant)


def _line(report: FilmReport, row: RowReport) -> str:
    return _LINES[_rank(report, row) % len(_LINES)]


def _hatch(report: FilmReport, row: RowReport) -> Optional[str]:
    return (None, '///', '...', 'xxx')[_rank(report, row) % 4]


def _rank(report: FilmReport, row: RowReport) -> int:
    """Return its place among the rows of one variant, which have one colour."""
    return [each.name for each in report.rows if each.variant == row.variant].index(row.name)
