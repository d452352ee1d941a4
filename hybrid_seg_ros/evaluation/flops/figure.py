"""Figure of GFLOPs: a panel per model, in it a bar per variant, divided by component."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.evaluation.flops.count import VariantCost, used_components
from hybrid_seg_ros.evaluation.pages.figures import GREY, SIZE_PX, SMALL, new_figure, save_figure, style_axis
from hybrid_seg_ros.evaluation.pages.tables import format_gflops

COLORS = {
    'embedding': '#999999', 'policy': '#D55E00', 'blocks': '#0072B2', 'auxiliary_heads': '#E69F00',
    'head': '#009E73', 'refinement': '#CC79A7', 'upsampling': '#444444',
}  # fmt: skip
"""Okabe and Ito's, which people with any kind of colour blindness can tell apart."""
COLUMNS = 2
LINE_PX, BELOW_PX, LEGEND_PX = 44, 90, 50
"""Heights: a bar with its distance to the next; what is below the bars of a panel; the legend."""
LEFT_PX, RIGHT_PX = 150, 20
TITLE_PX, TITLE_CHARACTERS = 22, 70
"""Height of a line of a panel's title, and how many characters it takes."""
BAR = 0.74
ROOM = 1.35
"""How far an axis reaches past its longest bar, for the text behind it."""


def draw_flops(tables: Mapping[str, Mapping[str, VariantCost]], path: Path) -> None:
    """Draw what variants cost, each model under its title, as a PNG, written whole or not at all."""
    titles = list(tables)
    columns = min(COLUMNS, len(titles))
    grid = [titles[start : start + columns] for start in range(0, len(titles), columns)]
    lines = [max(len(tables[title]) for title in beside) for beside in grid]
    headings_px = [TITLE_PX * (1 + max(len(_title_lines(title)) for title in beside)) for beside in grid]
    height_px = LEGEND_PX + sum(headings_px) + sum(BELOW_PX + LINE_PX * count for count in lines)
    figure = new_figure((SIZE_PX[0], height_px))
    cell_px = SIZE_PX[0] / columns
    top_px = LEGEND_PX
    for beside, count, heading_px in zip(grid, lines, headings_px):
        for column, title in enumerate(beside):
            bars_px = LINE_PX * count
            panel = figure.add_axes((
                (column * cell_px + LEFT_PX) / SIZE_PX[0], 1 - (top_px + heading_px + bars_px) / height_px,
                (cell_px - LEFT_PX - RIGHT_PX) / SIZE_PX[0], bars_px / height_px,
            ))  # fmt: skip
            _draw_panel(panel, title, tables[title], count)
        top_px += heading_px + BELOW_PX + LINE_PX * count
    _draw_legend(figure, used_components(cost for table in tables.values() for cost in table.values()))
    save_figure(figure, path)


def _draw_panel(panel: Any, title: str, table: Mapping[str, VariantCost], lines: int) -> None:
    style_axis(panel)
    panel.set_title('\n'.join(_title_lines(title)), fontsize=SMALL, loc='left')
    panel.set_xlim(0, ROOM * max(cost.gflops for cost in table.values()))
    panel.set_ylim(lines - 0.4, -0.6)
    panel.set_xlabel('GFLOPs of one image, a multiply-add counted as 1', fontsize=SMALL)
    panel.tick_params(axis='y', length=0)
    panel.set_yticks(range(len(table)), list(table))
    for line, cost in enumerate(table.values()):
        left = 0.0
        for name, gflops in cost.counts.gflops().items():
            panel.barh(line, gflops, BAR, left, color=COLORS[name], linewidth=0)
            left += gflops
        panel.annotate(_text(cost, table.get('dense')), (cost.gflops, line), xytext=(4, 0), textcoords='offset points',
                       fontsize=SMALL, va='center')  # fmt: skip


def _title_lines(title: str) -> list[str]:
    name, _, rest = title.partition(': ')
    return [name, *textwrap.wrap(rest, TITLE_CHARACTERS)]


def _text(cost: VariantCost, dense: Optional[VariantCost]) -> str:
    """Return what stands behind a bar: its length, and its share of the dense variant's."""
    text = format_gflops(cost.gflops)
    return text if dense in (None, cost) else f'{text}  {100 * cost.gflops / dense.gflops:.0f} % of dense'


def _draw_legend(figure: Any, names: list[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=COLORS[name], label=name.replace('_', ' ')) for name in names]
    figure.legend(handles=handles, loc='upper left', ncol=len(handles), fontsize=SMALL, frameon=False,
                  labelcolor=GREY, handlelength=1.2, columnspacing=1.4)  # fmt: skip
