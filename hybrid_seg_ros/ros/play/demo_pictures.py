"""The pictures of a demo: a contact sheet, and a video that browsers play."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.visualization import MERGED_COLORS, SINGLE_COLOR, draw_legend

_CELL_WIDTH = 360
_GAP, _MARGIN, _HEADER, _LEGEND_WIDTH = 8, 16, 34, 190
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TOKEN_ENTRIES = (
    *((f'merged {side}x{side} window', color) for side, color in MERGED_COLORS.items()),
    ('single token', SINGLE_COLOR), ('pruned token', (0, 0, 0)),
)  # fmt: skip

_CODECS = ('vp09', 'mp4v')
"""VP9, because browsers play it and OpenCV's wheels can encode it (H.264 they cannot); MPEG-4 where it is missing."""


@dataclass(frozen=True)
class SheetRow:
    """One frame: a caption, and its pictures (H, W, 3) uint8 RGB by column title; None leaves a cell empty."""

    caption: str
    pictures: Mapping[str, Optional[np.ndarray]]


def draw_contact_sheet(
    rows: Sequence[SheetRow], classes: LabelSpace, title: str, with_tokens: bool = True
) -> np.ndarray:
    """Return the sheet (H, W, 3) uint8 RGB: frames from top to bottom, what was made of them from left to right.

    There is a column for each title of the first row, and the legend on the right, which with `with_tokens`
    explains token maps, too.
    """
    columns = list(rows[0].pictures)
    first = next(picture for picture in rows[0].pictures.values() if picture is not None)
    cell_height = round(first.shape[0] * _CELL_WIDTH / first.shape[1])
    top, left = _MARGIN + 2 * _HEADER, _MARGIN
    height = top + len(rows) * (cell_height + _GAP) - _GAP + _MARGIN
    legend_left = left + len(columns) * (_CELL_WIDTH + _GAP) + _MARGIN
    legend = _legend(classes, with_tokens)
    sheet = np.full((max(height, top + legend.shape[0] + _MARGIN), legend_left + _LEGEND_WIDTH, 3), 255, np.uint8)
    _write(sheet, title, (left, _MARGIN + 20), scale=0.65)
    for index, column in enumerate(columns):
        x = left + index * (_CELL_WIDTH + _GAP)
        _write(sheet, column, (x, top - 10))
        for number, row in enumerate(rows):
            y = top + number * (cell_height + _GAP)
            picture = row.pictures[column]
            if picture is not None:
                cell = cv2.resize(picture, (_CELL_WIDTH, cell_height), interpolation=cv2.INTER_AREA)
                sheet[y : y + cell_height, x : x + _CELL_WIDTH] = cell
            if index == 0:
                _write(sheet, row.caption, (x + 7, y + cell_height - 8), color=(0, 0, 0), thickness=3)
                _write(sheet, row.caption, (x + 7, y + cell_height - 8), color=(255, 255, 255))
    sheet[top : top + legend.shape[0], legend_left : legend_left + legend.shape[1]] = legend
    return sheet


class Video:
    """A video file; a context manager, after which it is whole or not there (OSError).

    All pictures have the size of the first, which makes the file.
    """

    def __init__(self, path: Path, rate_hz: float) -> None:
        self.path, self._rate_hz = path, rate_hz
        self._writer: Optional[cv2.VideoWriter] = None
        self._size_hw = (0, 0)
        self._count = 0

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: Optional[type], error: Optional[BaseException], _: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None and cv2.VideoCapture(str(self.path)).get(cv2.CAP_PROP_FRAME_COUNT) != self._count:
            error = OSError(f'{self.path}: not all of {self._count} pictures were written; is the disk full?')
        if error is not None:
            self.path.unlink(missing_ok=True)
            raise error

    def add(self, picture: np.ndarray) -> None:
        """Append a picture (H, W, 3) uint8 RGB; a last odd row or column is cut off. Raises OSError without a codec."""
        picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        if self._writer is None:
            self._writer, self._size_hw = self._open(picture.shape[:2]), picture.shape[:2]
        if picture.shape[:2] != self._size_hw:
            raise ValueError(f'expected pictures of {self._size_hw}, got {picture.shape[:2]}')
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self._count += 1

    def _open(self, size_hw: tuple[int, int]) -> cv2.VideoWriter:
        for codec in _CODECS:
            writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*codec), self._rate_hz, size_hw[::-1])
            if writer.isOpened():
                return writer
        raise OSError(f'{self.path}: cannot be written, or OpenCV has none of the codecs {", ".join(_CODECS)}')


def _legend(classes: LabelSpace, with_tokens: bool) -> np.ndarray:
    named = draw_legend(list(zip(classes.names, classes.palette)), _LEGEND_WIDTH)
    if not with_tokens:
        return named
    blank = np.full((_GAP * 2, _LEGEND_WIDTH, 3), 255, np.uint8)
    return np.vstack([named, blank, draw_legend(list(_TOKEN_ENTRIES), _LEGEND_WIDTH)])


def _write(
    sheet: np.ndarray,
    text: str,
    corner: tuple[int, int],
    scale: float = 0.5,
    color: tuple[int, int, int] = (0, 0, 0),
    thickness: int = 1,
) -> None:
    cv2.putText(sheet, text, corner, _FONT, scale, color, thickness, cv2.LINE_AA)
