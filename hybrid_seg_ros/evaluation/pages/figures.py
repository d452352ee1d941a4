"""The look of this package's figures: sizes, colours, axes, PNG. matplotlib is imported to draw one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_seg_ros.files import write_bytes

SIZE_PX = (1600, 800)
"""Width and height of a figure."""
DPI = 160  # text of 10 points is then still 11 pixels high where a README shows the figure 830 wide
TEXT, SMALL = 10, 8
# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart; markers differ as well
STYLES = {'dtop@6+8': ('#0072B2', 's'), 'dtop@8': ('#009E73', '^'), 'hybrid@6+8': ('#D55E00', 'D'),
          'hybrid@8': ('#A0457E', 'o')}  # fmt: skip
OTHER_STYLE = ('#444444', 'v')
VARIANT_COLORS = {'dense': '#444444', 'cts': '#56B4E9', **{variant: color for variant, (color, _) in STYLES.items()}}
GREY, BAND = '#666666', '#EDEDED'
MARKER_PX = 8.0
SAMPLE_PX = 4.0
DIRECTIONS = ((1, -1), (-1, 1), (0, -1), (0, 1), (1, 1), (-1, -1), (1, 0), (-1, 0))
DISTANCES = (1.0, 2.2, 4.0, 6.0)
"""Of the texts that LabelPlacer places: where they may stand from their point, and how many markers away."""


def require_matplotlib() -> None:
    """Raise ModuleNotFoundError that says how to get matplotlib, if it is not there."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'figures need matplotlib: pip install matplotlib or, for the Python of a sourced ROS 2, '
            'sudo apt install python3-matplotlib'
        ) from error


def variant_color(variant: str) -> str:
    """Return the colour of a variant."""
    return VARIANT_COLORS.get(variant, OTHER_STYLE[0])


def style_axis(axis: Any) -> None:
    """Give an axis the look of this package's figures."""
    axis.tick_params(labelsize=TEXT - 1, color=GREY, labelcolor=GREY)
    for side in ('top', 'right'):
        axis.spines[side].set_visible(False)
    for side in ('left', 'bottom'):
        axis.spines[side].set_color(GREY)


def new_figure(size_px: tuple[int, int] = SIZE_PX) -> Any:
    """Return an empty figure of (width, height) pixels that needs no display."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / DPI, size_px[1] / DPI), dpi=DPI, facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def figure_png(figure: Any) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=DPI)
    return buffer.getvalue()


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and the folders that it is to lie in."""
    write_bytes(path, figure_png(figure))


class LabelPlacer:
    """Places texts of one panel of a matplotlib figure, whose limits and position must be final, one after the other.

    Each text goes beside its point, in the direction where its box covers least: of the lines and markers that were
    added as obstacles, of earlier texts, and of what is outside of the panel.
    """

    def __init__(self, panel: Any, renderer: Any) -> None:
        self._panel, self._renderer = panel, renderer
        self._points = np.empty((0, 2))  # in pixels of the picture
        self._boxes = np.empty((0, 4))  # left, bottom, right, top

    def avoid_line(self, x: list[float], y: list[float]) -> None:
        """Add a line through data points, with its markers, to what texts should not cover."""
        corners = self._panel.transData.transform(np.column_stack([x, y]))
        for start, end in zip(corners[:-1], corners[1:]):
            steps = np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / SAMPLE_PX))[:, None]
            self._points = np.vstack([self._points, start + steps * (end - start)])
        for each in zip(x, y):
            self.avoid_box(*each)

    def avoid_box(self, x: float, y: float, half_px: float = MARKER_PX) -> None:
        """Add a square around a data point to what texts should not cover."""
        center = self._panel.transData.transform((x, y))
        self._add_box((*(center - half_px), *(center + half_px)))

    def place(self, text: str, x: float, y: float, marker_px: float = MARKER_PX, **style: Any) -> None:
        """Write `text` beside the data point; `marker_px` is the radius to stay clear of, `style` is of Axes.text."""
        label = self._panel.text(x, y, text, ha='center', va='center', zorder=6, **style)
        extent = label.get_window_extent(self._renderer)
        half = np.array([extent.width, extent.height]) / 2
        anchor = self._panel.transData.transform((x, y))
        best, least = anchor, np.inf
        for rank, distance in enumerate(DISTANCES):
            for order, direction in enumerate(DIRECTIONS):
                center = anchor + np.array(direction) * (half + marker_px * distance * (0.5 if all(direction) else 1.0))
                cost = self._cost(center - half, center + half) + 6 * rank + 0.1 * order
                if cost < least:
                    best, least = center, cost
        label.set_position(self._panel.transData.inverted().transform(best))
        self._add_box((*(best - half), *(best + half)))

    def _cost(self, low: np.ndarray, high: np.ndarray) -> float:
        covered = ((self._points > low) & (self._points < high)).all(1).sum()
        overlap = np.minimum(high, self._boxes[:, 2:]) - np.maximum(low, self._boxes[:, :2])
        # a share of the smaller one: under a long text a marker vanishes as well
        sizes = np.minimum((self._boxes[:, 2:] - self._boxes[:, :2]).prod(1), (high - low).prod())
        hidden = (overlap.clip(0).prod(1) / sizes).sum()
        inside = self._panel.get_window_extent(self._renderer)
        outside = (low < (inside.x0, inside.y0)).any() or (high > (inside.x1, inside.y1)).any()
        return 2.0 * covered + 100.0 * hidden + 1000.0 * outside

    def _add_box(self, box: tuple[float, ...]) -> None:
        self._boxes = np.vstack([self._boxes, box])
