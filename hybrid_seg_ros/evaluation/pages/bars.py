"""Figures of horizontal bars: panels in two columns, bars in each, divided into parts, with a text behind them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from hybrid_seg_ros.evaluation.pages.figures import GREY, SIZE_PX, SMALL, TEXT, new_figure, style_axis

COLUMNS = 2
LINE_PX, BELOW_PX = 34, 90
"""Heights: a bar with its distance to the next; what is below the bars of a panel."""
LEFT_PX, RIGHT_PX = 150, 15
TITLE_PX, TITLE_CHARACTERS = 22, 58
"""Height of a line of a panel's title, and how many characters it takes."""
HEADING_PX = 60
"""Height of the heading of the figure, or of its legend."""
THICKNESS = 0.74
CHARACTER_PX = 9.6
"""Width of a character of the texts behind the bars, on average."""


@dataclass(frozen=True)
class Bar:
    """A bar: its name, its parts from left to right as (colour, opacity, length), and the text behind it."""

    name: str
    parts: Sequence[tuple[str, float, float]]
    text: str
    name_color: str = GREY

    @property
    def length(self) -> float:
        """Length of all parts."""
        return sum(length for _, _, length in self.parts)


Line = Union[Bar, str]
"""A bar, or the heading of those that follow."""


def draw_bars(
    panels: Mapping[str, Sequence[Line]], unit: str, heading: str = '', legend: Optional[Mapping[str, str]] = None
) -> Any:
    """Draw a panel for each title; `unit` is below each, `heading` or `legend` (colours by name) above all of them."""
    titles = list(panels)
    columns = min(COLUMNS, len(titles))
    rows = [titles[start : start + columns] for start in range(0, len(titles), columns)]
    titles_px = [TITLE_PX * (1 + max(len(_title_lines(title)) for title in row)) for row in rows]
    bars_px = [LINE_PX * max(len(panels[title]) for title in row) for row in rows]
    top_px = HEADING_PX if heading or legend else 0
    size_px = (SIZE_PX[0], top_px + sum(titles_px) + sum(bars_px) + BELOW_PX * len(rows))
    figure = new_figure(size_px)
    figure.text(0.012, 1 - 14 / size_px[1], heading, fontsize=TEXT - 1, va='top', wrap=True)
    if legend:
        _draw_legend(figure, legend)
    cell_px = size_px[0] / columns
    width_px = cell_px - LEFT_PX - RIGHT_PX
    for row, title_px, height_px in zip(rows, titles_px, bars_px):
        for column, title in enumerate(row):
            left, bottom = (column * cell_px + LEFT_PX) / size_px[0], 1 - (top_px + title_px + height_px) / size_px[1]
            panel = figure.add_axes((left, bottom, width_px / size_px[0], height_px / size_px[1]))
            style_axis(panel)
            panel.set_title('\n'.join(_title_lines(title)), fontsize=SMALL, fontweight='bold', loc='left')
            panel.set_xlabel(unit, fontsize=SMALL)
            panel.set_ylim(height_px / LINE_PX - 0.4, -0.6)
            _draw_lines(panel, panels[title], width_px)
        top_px += title_px + height_px + BELOW_PX
    return figure


def _draw_lines(panel: Any, lines: Sequence[Line], width_px: float) -> None:
    bars = {place: line for place, line in enumerate(lines) if isinstance(line, Bar)}
    # a bar leaves room for the text behind it
    panel.set_xlim(0, max(
        bar.length / max(0.2, 1 - (CHARACTER_PX * len(bar.text) + 20) / width_px) for bar in bars.values()
    ))  # fmt: skip
    for place, line in enumerate(lines):
        x, text, style = 0.0, line, {'fontweight': 'bold', 'color': GREY}
        if isinstance(line, Bar):
            for color, opacity, length in line.parts:
                panel.barh(place, length, THICKNESS, x, color=color, alpha=opacity, linewidth=0)
                x += length
            text, style = line.text, {}
        panel.annotate(text, (x, place), xytext=(4, 0), textcoords='offset points', fontsize=SMALL, va='center',
                       **style)  # fmt: skip
    panel.tick_params(axis='y', length=0)
    panel.set_yticks(list(bars), [bar.name for bar in bars.values()])
    for label, bar in zip(panel.get_yticklabels(), bars.values()):
        label.set_color(bar.name_color)


def _draw_legend(figure: Any, colors: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=handles, loc='upper left', ncol=len(handles), fontsize=SMALL, frameon=False,
                  labelcolor=GREY, handlelength=1.2, columnspacing=1.4)  # fmt: skip


def _title_lines(title: str) -> list[str]:
    name, _, rest = title.partition(': ')
    return [name, *textwrap.wrap(rest, TITLE_CHARACTERS)]
