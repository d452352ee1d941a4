"""Reads images, and label files as ids or as colours; a file that is cut off or damaged is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import cv2
import numpy as np

from hybrid_seg_ros.data.file_damage import find_damage
from hybrid_seg_ros.data.png_file import palette_indices

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')
LABEL_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
"""Label files are lossless: JPEG would blend the ids of neighbours into those of others."""


class DatasetError(ValueError):
    """A dataset that cannot be read; the message names the file."""


def read_image(path: Union[str, Path]) -> np.ndarray:
    """Read an image file as RGB (H, W, 3) uint8, turned as its EXIF orientation says."""
    return cv2.cvtColor(_decode(path, read_whole(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_label_ids(path: Union[str, Path]) -> np.ndarray:
    """Read a file of one value per pixel, (H, W) uint8 or uint16; of a file with a palette, the indices.

    Three equal channels count as one.
    """
    data = read_whole(path)
    indices = palette_indices(data)
    if indices is not None:
        return indices
    values = _without_alpha(_decode(path, data, cv2.IMREAD_UNCHANGED))
    if values.ndim == 3:
        if not (values == values[:, :, :1]).all():
            raise DatasetError(f'{path}: expected one class id per pixel, got colours (each class needs its color)')
        values = np.ascontiguousarray(values[:, :, 0])
    if values.dtype not in (np.uint8, np.uint16):
        raise DatasetError(f'{path}: expected labels of 8 or 16 bits, got {values.dtype}')
    return values


def read_label_colors(path: Union[str, Path]) -> np.ndarray:
    """Read a file of one colour per pixel, by palette or not, as RGB (H, W, 3) uint8; a grey one as (H, W)."""
    colors = _without_alpha(_decode(path, read_whole(path), cv2.IMREAD_UNCHANGED))
    if colors.ndim == 2:
        return colors
    if colors.dtype != np.uint8:
        raise DatasetError(f'{path}: expected colours of 8 bits a channel, got {colors.dtype}')
    return cv2.cvtColor(colors, cv2.COLOR_BGR2RGB)


def read_whole(path: Union[str, Path]) -> bytes:
    """Read an image file's bytes. Raises DatasetError if they end early or are damaged."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f'{path}: cannot be read: {error.strerror}') from error
    damage = find_damage(data)
    if damage is not None:
        raise DatasetError(f'{path}: {damage}')
    return data


def _decode(path: Union[str, Path], data: bytes, mode: int) -> np.ndarray:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error as error:
        raise DatasetError(f'{path}: not a readable image: {error.err}') from error
    if picture is None:
        raise DatasetError(f'{path}: not a readable image')
    return picture


def _without_alpha(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture[:, :, :3]) if picture.ndim == 3 else picture
