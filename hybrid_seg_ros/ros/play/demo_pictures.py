"""The pictures of a demo: a contact sheet, and a video that browsers play."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.visualization import TitledPicture, class_legend, draw_sheet, draw_text, fit_image, token_legend

_CELL_WIDTH = 360
_GAP, _MARGIN, _HEADER, _LEGEND_WIDTH = 16, 16, 34, 190

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
    first = next(picture for picture in rows[0].pictures.values() if picture is not None)
    size_hw = (round(first.shape[0] * _CELL_WIDTH / first.shape[1]), _CELL_WIDTH)
    cells = []
    for row in rows:
        titles = row.pictures if row is rows[0] else [''] * len(row.pictures)
        pictures = [np.full((*size_hw, 3), 255, np.uint8) if picture is None else fit_image(picture, size_hw).copy()
                    for picture in row.pictures.values()]  # fmt: skip
        for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            draw_text(pictures[0], row.caption, (7, size_hw[0] - 8), color=color, thickness=thickness)
        cells.append(list(map(TitledPicture, titles, pictures)))
    grid, legend = draw_sheet(cells, _CELL_WIDTH), _legend(classes, with_tokens)
    top, left = _MARGIN + _HEADER, _MARGIN + grid.shape[1] + _GAP
    height = top + max(grid.shape[0], legend.shape[0]) + _MARGIN
    sheet = np.full((height, left + _LEGEND_WIDTH, 3), 255, np.uint8)
    draw_text(sheet, title, (_MARGIN, _MARGIN + 20), scale=0.65)
    sheet[top : top + grid.shape[0], _MARGIN : left - _GAP] = grid
    sheet[top : top + legend.shape[0], left:] = legend
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
    of_classes = class_legend(classes, _LEGEND_WIDTH)
    if not with_tokens:
        return of_classes
    blank = np.full((_GAP, _LEGEND_WIDTH, 3), 255, np.uint8)
    return np.vstack([of_classes, blank, token_legend(_LEGEND_WIDTH)])
