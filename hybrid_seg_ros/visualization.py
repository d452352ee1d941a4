"""Pictures for people: overlay, token map, legends and sheets, as RGB arrays. Nothing here knows ROS or PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.files import write_bytes
from hybrid_seg_ros.label_space import UNLABELLED, LabelSpace
from hybrid_seg_ros.segmentation import TokenReport

Color = tuple[int, int, int]

MERGED_COLORS: dict[int, Color] = {2: (40, 90, 255), 4: (0, 165, 215), 8: (0, 150, 100)}
"""Of windows that share a token, by their side in patches."""
SINGLE_COLOR: Color = (235, 40, 30)
TINT = 0.25
"""How much of a token's colour lies over the image."""
_PRUNED_TINT = 0.85
_EARLIEST_SHADE, _LATEST_SHADE = 0, 75
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BLACK: Color = (0, 0, 0)
_WHITE: Color = (255, 255, 255)
_BAND, _GAP = 24, 6
"""Pixels above a row of a sheet that has titles, and between its pictures."""
_LEGEND_ROWS, _LEGEND_ROW_HEIGHTS = 24, (12, 32)
"""A picture's height is that of so many rows of its legend, within these limits in pixels."""
_LEGEND_TINT = 0.6
"""How much of the picture below the legend is darkened: white text is to be read on a white sky."""


def draw_overlay(image: np.ndarray, labels: np.ndarray, classes: LabelSpace, alpha: float = 0.6) -> np.ndarray:
    """Lay the classes' colours over an image: (h, w, 3) uint8 RGB, of the size of the labels.

    `image` (H, W, 3) uint8 RGB is resized to `labels` (h, w) uint8. `alpha` is the colours' share, 0 to 1.
    Unlabelled pixels show the image as it is.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f'alpha: expected a number from 0 to 1, got {alpha}')
    image = fit_image(image, labels.shape)
    overlay = cv2.addWeighted(image, 1.0 - alpha, classes.colorize(labels), alpha, 0.0)
    unlabelled = labels == UNLABELLED
    if unlabelled.any():
        overlay[unlabelled] = image[unlabelled]
    return overlay


def add_class_legend(picture: np.ndarray, labels: np.ndarray, classes: LabelSpace) -> np.ndarray:
    """Name the classes of `labels` (h, w) uint8 in a picture's upper left corner: a new (H, W, 3) uint8 RGB array.

    In the order of their ids, so that each keeps its place. Where more are present than fit, those with the fewest
    pixels are only counted. Unlabelled pixels are no class.
    """
    pixels = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()[: len(classes)]
    present = np.flatnonzero(pixels)
    low, high = _LEGEND_ROW_HEIGHTS
    row_height = min(max(picture.shape[0] // _LEGEND_ROWS, low), high)
    fitting = max(1, picture.shape[0] // row_height - 1)
    if len(present) > fitting:
        largest = present[np.argsort(-pixels[present], kind='stable')[: fitting - 1]]
        rows = [(classes.names[index], classes.palette[index]) for index in np.sort(largest)]
        rows.append((f'+ {len(present) - len(largest)} more', None))
    else:
        rows = [(classes.names[index], classes.palette[index]) for index in present]
    return _draw_rows(picture, rows, row_height)


def draw_token_map(image: np.ndarray, tokens: TokenReport, size_hw: tuple[int, int]) -> np.ndarray:
    """Draw where the tokens went (figures 1.2 and 1.4 of the paper) over an image: (h, w, 3) uint8 RGB.

    Each token is outlined and tinted: windows that share a token blue (larger ones greener), single tokens red. Tokens
    that left the encoder early are blackened: black after the first pruning layer, dark grey after later ones.
    `image` (H, W, 3) uint8 RGB is resized to `size_hw`.
    """
    picture = fit_image(image, size_hw).copy()
    layers = [layer for layer, _ in tokens.kept]
    for rows, cells, region in _regions(picture, tokens, image.shape[:2]):
        window = tokens.window_size[rows]
        color = _spread(_color_table()[window], *cells)
        pruned_after = tokens.pruned_after_layer[rows]
        shade = cv2.cvtColor(_spread(_shade_table(layers)[pruned_after], *cells), cv2.COLOR_GRAY2RGB)
        tinted = cv2.addWeighted(region, 1.0 - TINT, color, TINT, 0.0)
        blackened = cv2.addWeighted(region, 1.0 - _PRUNED_TINT, shade, _PRUNED_TINT, 0.0)
        region[:] = tinted
        cv2.copyTo(blackened, _spread((pruned_after > 0).astype(np.uint8), *cells), region)
        cv2.copyTo(color, _outline(_spread(_token_of_cell(window), *cells)), region)
    return picture


def draw_pruned(image: np.ndarray, tokens: TokenReport, layer: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Draw an image (H, W, 3) uint8 RGB at `size_hw`, black where tokens have left by `layer`.

    Where the crops of a sliding window overlap, black is where the token of one of them has left.
    """
    picture = fit_image(image, size_hw).copy()
    gone = (tokens.pruned_after_layer > 0) & (tokens.pruned_after_layer <= layer)
    for rows, cells, region in _regions(picture, tokens, image.shape[:2]):
        region[_spread(gone[rows], *cells)] = 0
    return picture


def class_legend(classes: LabelSpace, width: int = 240) -> np.ndarray:
    """Draw the classes' names and colours: (h, width, 3) uint8 RGB."""
    return draw_legend(list(zip(classes.names, classes.palette)), width)


def draw_legend(entries: Sequence[tuple[str, Color]], width: int, row_height: int = 22) -> np.ndarray:
    """Draw one row per (text, colour), black on white: (rows * row_height, width, 3) uint8 RGB."""
    picture = np.full((max(1, len(entries)) * row_height, width, 3), 255, np.uint8)
    for index, (text, color) in enumerate(entries):
        top = index * row_height
        cv2.rectangle(picture, (4, top + 4), (24, top + row_height - 4), tuple(map(int, color)), cv2.FILLED)
        cv2.rectangle(picture, (4, top + 4), (24, top + row_height - 4), _BLACK, 1)
        draw_text(picture, text, (32, top + row_height - 7), 0.45)
    return picture


def token_legend(width: int) -> np.ndarray:
    """Draw what the colours of a token map mean: (h, width, 3) uint8 RGB."""
    merged = [(f'merged {side}x{side} window', color) for side, color in MERGED_COLORS.items()]
    return draw_legend([*merged, ('single token', SINGLE_COLOR), ('pruned token', _BLACK)], width)


@dataclass(frozen=True)
class TitledPicture:
    """A picture (H, W, 3) uint8 RGB and what it shows, in a few words."""

    title: str
    rgb: np.ndarray


def draw_sheet(rows: Sequence[Sequence[TitledPicture]], width: int) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, white where there is nothing; every picture is fitted into `width` pixels.

    Each keeps its aspect, with its title above; one that is too long is written smaller.
    """
    if not rows or not all(rows):
        raise ValueError(f'expected at least one picture in each row, got {[len(row) for row in rows]}')
    columns = max(len(row) for row in rows)
    strips = []
    for row in rows:
        pictures = [fit_image(each.rgb, (max(1, round(width * each.rgb.shape[0] / each.rgb.shape[1])), width))
                    for each in row]  # fmt: skip
        band = _BAND if any(each.title for each in row) else 0
        height = band + max(len(picture) for picture in pictures) + _GAP
        strip = np.full((height, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
        for index, (each, picture) in enumerate(zip(row, pictures)):
            left = index * (width + _GAP)
            strip[band : band + len(picture), left : left + width] = picture
            text_width = cv2.getTextSize(each.title, _FONT, 0.5, 1)[0][0]
            draw_text(strip, each.title, (left, _BAND - 8), 0.5 * min(1.0, width / max(1, text_width)))
        strips.append(strip)
    return np.concatenate(strips)


def draw_text(
    picture: np.ndarray, text: str, corner: tuple[int, int], scale: float = 0.5, color: Color = _BLACK,
    thickness: int = 1,
) -> None:  # fmt: skip
    """Write into a picture (H, W, 3) uint8 RGB; `corner` is the lower left one of the text, as (x, y)."""
    cv2.putText(picture, text, corner, _FONT, scale, color, thickness, cv2.LINE_AA)


def _draw_rows(picture: np.ndarray, rows: Sequence[tuple[str, Optional[Color]]], row_height: int) -> np.ndarray:
    """Write (text, colour) rows over the upper left corner of a copy of the picture; no larger than they need."""
    picture = picture.copy()
    if not rows:
        return picture
    scale, gap, square = row_height / 38, row_height // 4, row_height * 5 // 8
    width = max(cv2.getTextSize(text, _FONT, scale, 1)[0][0] for text, _ in rows)
    box = picture[: len(rows) * row_height + gap, : square + width + 3 * gap]
    box[:] = cv2.convertScaleAbs(box, alpha=1.0 - _LEGEND_TINT)
    for index, (text, color) in enumerate(rows):
        top = index * row_height + gap
        if color is not None:
            corners = (gap, top), (gap + square - 1, top + square - 1)
            cv2.rectangle(picture, *corners, tuple(map(int, color)), cv2.FILLED)
            cv2.rectangle(picture, *corners, _WHITE, 1)
        draw_text(picture, text, (square + 2 * gap, top + square - 1), scale, _WHITE)
    return picture


def fit_image(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 to `size_hw`; the image itself where it has that size."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'expected an RGB image (H, W, 3) uint8, got {image.shape} {image.dtype}')
    if image.shape[:2] == tuple(size_hw):
        return image
    shrinks = size_hw[0] * size_hw[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write (H, W) uint8, or (H, W, 3) uint8 RGB, whole or not at all. Raises OSError that names the file."""
    write_bytes(path, cv2.imencode('.png', picture if picture.ndim == 2 else picture[..., ::-1])[1].tobytes())


def _regions(
    picture: np.ndarray, tokens: TokenReport, image_hw: tuple[int, int]
) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """Yield, for each crop, its rows of the grid, the cell of each row and column of pixels, and its part of `picture`.

    The grid covers areas of an image of `image_hw`, of which `picture` is a copy of any size.
    """
    areas = tokens.areas or ((0.0, 0.0, float(image_hw[0]), float(image_hw[1])),)
    rows, columns = tokens.grid_hw[0] // len(areas), tokens.grid_hw[1]
    scale_y, scale_x = picture.shape[0] / image_hw[0], picture.shape[1] / image_hw[1]
    for index, (top, left, height, width) in enumerate(areas):
        y, cell_row = _cell_of_pixel(top * scale_y, height * scale_y, rows, picture.shape[0])
        x, cell_column = _cell_of_pixel(left * scale_x, width * scale_x, columns, picture.shape[1])
        region = picture[y : y + cell_row.size, x : x + cell_column.size]
        yield slice(index * rows, (index + 1) * rows), (cell_row, cell_column), region


def _cell_of_pixel(start: float, length: float, cells: int, limit: int) -> tuple[int, np.ndarray]:
    """Return the first pixel that `cells` spread over [start, start + length) cover, and the cell of each pixel.

    Pixels outside [0, limit) are left out: there the grid lies on padding.
    """
    first, last = max(0, round(start)), min(limit, round(start + length))
    cell = ((np.arange(first, last) + 0.5 - start) * (cells / length)).astype(np.int64)
    return first, np.clip(cell, 0, cells - 1)


def _token_of_cell(window_size: np.ndarray) -> np.ndarray:
    """Return, per cell, a number that is the same for the cells of one token: (gh, gw) int64."""
    rows, columns = np.indices(window_size.shape)
    size = window_size.astype(np.int64)
    return rows // size * size * window_size.shape[1] + columns // size * size


def _spread(values: np.ndarray, cell_row: np.ndarray, cell_column: np.ndarray) -> np.ndarray:
    """Give each pixel the value of its cell: (gh, gw, ...) to (H, W, ...)."""
    return np.take(np.take(values, cell_column, axis=1), cell_row, axis=0)


def _outline(token: np.ndarray) -> np.ndarray:
    """Return (H, W) uint8, 1 at the upper and left edge of each token and at the picture's end, else 0."""
    outline = np.zeros(token.shape, np.uint8)
    outline[1:] |= token[1:] != token[:-1]
    outline[:, 1:] |= token[:, 1:] != token[:, :-1]
    outline[[0, -1]] = 1
    outline[:, [0, -1]] = 1
    return outline


def _color_table() -> np.ndarray:
    """Return (256, 3) uint8: the colour of a token whose window has this side."""
    table = np.tile(np.uint8(SINGLE_COLOR), (256, 1))
    for side, color in MERGED_COLORS.items():
        table[side] = color
    return table


def _shade_table(layers: Sequence[int]) -> np.ndarray:
    """Return (256,) uint8: how bright a token pruned after this layer is drawn; black for the earliest layer."""
    table = np.zeros(256, np.uint8)
    table[list(layers)] = np.linspace(_EARLIEST_SHADE, _LATEST_SHADE, num=len(layers)).astype(np.uint8)
    return table
