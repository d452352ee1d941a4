"""Write pictures as an MP4 that browsers play, with what OpenCV brings."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Optional

import cv2
import numpy as np

_CODECS = ('vp09', 'mp4v')
"""VP9, because browsers play it and OpenCV's wheels can encode it (H.264 they cannot); MPEG-4 where it is missing."""


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

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
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
