"""Reads images, and label files as ids or as colours; a file that is cut off or damaged is an error."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, Union

import numpy as np

from hybrid_seg_ros.data.encoded_picture import EncodedPicture, PictureError, open_picture

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')
LABEL_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
"""Label files are lossless: JPEG would blend the ids of neighbours into those of others."""

Content = TypeVar('Content')


class DatasetError(ValueError):
    """A dataset that cannot be read; the message names the file."""


def read_image(path: Union[str, Path]) -> np.ndarray:
    """Read an image file as RGB (H, W, 3) uint8, turned as its EXIF orientation says."""
    return _read(path, lambda picture: picture.rgb(turned=True))


def read_label_ids(path: Union[str, Path]) -> np.ndarray:
    """Read a file of one value per pixel, (H, W) uint8 or uint16, as stored; of a file with a palette, the indices.

    Three equal channels count as one. Turned as an image is.
    """
    return _read(path, lambda picture: picture.values(turned=True))


def read_label_colors(path: Union[str, Path]) -> np.ndarray:
    """Read a file of one colour per pixel, by palette or not, as RGB (H, W, 3) uint8; a grey one as shades (H, W)."""
    return _read(path, _colors)


def read_label_ids_or_colors(path: Union[str, Path]) -> np.ndarray:
    """Read a file with one channel as ids (H, W), any other, with a palette too, as colours (H, W, 3)."""
    return _read(path, lambda picture: picture.values(turned=True) if picture.is_grey else _colors(picture))


def list_images(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the image files in a folder, those below it aside, in natural order: frame_2 comes before frame_10.

    Hidden files are left out: macOS puts a `._NAME` beside each file on disks of others.
    """
    files = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith('.'))
    return sorted((path for path in files if not path.is_dir()), key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple:
    """Return what to sort names by so that the numbers in them count as numbers."""
    parts = re.split(r'(\d+)', same_name(name))
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name


def same_name(name: str) -> str:
    """Return a name in the one form (NFC) that is compared: macOS takes letters with accents apart, others do not."""
    return unicodedata.normalize('NFC', name)


def read_picture(path: Union[str, Path]) -> EncodedPicture:
    """Read and check a file, its pixels aside. Raises DatasetError."""
    return _read(path, lambda picture: picture)


def _read(path: Union[str, Path], content: Callable[[EncodedPicture], Content]) -> Content:
    try:
        return content(open_picture(Path(path).read_bytes()))
    except OSError as error:
        raise DatasetError(f'{path}: cannot be read: {error.strerror}') from error
    except PictureError as error:
        raise DatasetError(f'{path}: {error}') from error


def _colors(picture: EncodedPicture) -> np.ndarray:
    if picture.has_wide_colors():
        raise PictureError('expected colours of 8 bits a channel, got more')
    return picture.pixels(turned=True)
