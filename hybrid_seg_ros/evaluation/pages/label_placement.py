"""Finds places for the texts of a plot where they hide neither lines nor each other."""

from __future__ import annotations

from typing import Any

import numpy as np

MARKER_PX = 8.0
SAMPLE_PX = 4.0
DIRECTIONS = ((1, -1), (-1, 1), (0, -1), (0, 1), (1, 1), (-1, -1), (1, 0), (-1, 0))
DISTANCES = (1.0, 2.2, 4.0, 6.0)


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
        hidden = overlap.clip(0).prod(1).sum() / (high - low).prod()
        inside = self._panel.get_window_extent(self._renderer)
        outside = (low < (inside.x0, inside.y0)).any() or (high > (inside.x1, inside.y1)).any()
        return 2.0 * covered + 100.0 * hidden + 1000.0 * outside

    def _add_box(self, box: tuple[float, ...]) -> None:
        self._boxes = np.vstack([self._boxes, box])
