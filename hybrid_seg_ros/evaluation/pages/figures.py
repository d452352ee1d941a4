"""The look of this package's figures: sizes, colours, axes, PNG. matplotlib is imported to draw one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

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
