"""Writes the pictures that tests read: RGB images, and label files of every depth, by the formats' specifications."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
from PIL import Image

Colors = list[tuple[int, int, int]]


def write_picture(path: Path, values: np.ndarray) -> Path:
    """Write (H, W) values or (H, W, 3) RGB colours, as the suffix says; parents are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), values if values.ndim == 2 else cv2.cvtColor(values, cv2.COLOR_RGB2BGR))
    return path


def write_pair(image: Path, labels: Path, values: np.ndarray) -> None:
    """Write a label file, and an image of its size."""
    rng = np.random.default_rng(0)
    write_picture(image, rng.integers(0, 256, (*values.shape[:2], 3), np.uint8))
    write_picture(labels, values)


def indexed_png(
    indices: np.ndarray, palette: Optional[Colors], bits: int = 8, alpha: Optional[bytes] = None
) -> bytes:  # fmt: skip
    """Return a PNG file of `indices` (H, W) with 1, 2, 4 or 8 bits each; without a palette a grey one."""
    height, width = indices.shape
    rows = b''.join(b'\0' + row.tobytes() for row in packed_rows(indices, bits))
    chunks = [
        (b'IHDR', struct.pack('>IIBBBBB', width, height, bits, 3 if palette else 0, 0, 0, 0)),
        *([(b'PLTE', bytes(channel for color in palette for channel in color))] if palette else []),
        *([(b'tRNS', alpha)] if alpha else []),
        (b'IDAT', zlib.compress(rows)),
        (b'IEND', b''),
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
        for kind, content in chunks
    )


def indexed_bmp(indices: np.ndarray, palette: Colors, bits: int, top_down: bool = False) -> bytes:
    """Return a BMP file of `indices` (H, W) with 1, 4 or 8 bits each."""
    height, width = indices.shape
    rows = packed_rows(indices, bits)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    colors = b''.join(bytes((*color[::-1], 0)) for color in palette)
    start = 54 + len(colors)
    return b'BM' + struct.pack(
        '<IIIIiiHHIIiiII', start + rows.size, 0, start, 40, width, -height if top_down else height, 1, bits, 0,
        rows.size, 0, 0, len(palette), 0,
    ) + colors + (rows if top_down else rows[::-1]).tobytes()  # fmt: skip


def grey_tiff(values: np.ndarray, bits: int, white_is_zero: bool = False) -> bytes:
    """Return a TIFF file of `values` (H, W) with 1, 2, 4 or 8 bits each."""
    height, width = values.shape
    rows = packed_rows(values, bits).tobytes()
    rows += bytes(len(rows) % 2)
    tags = {
        256: width, 257: height, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1, 278: height,
        279: len(rows),
    }  # fmt: skip
    entries = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags.items())
    return b'II*\0' + struct.pack('<I', 8 + len(rows)) + rows + struct.pack('<H', len(tags)) + entries + bytes(4)


def packed_rows(values: np.ndarray, bits: int) -> np.ndarray:
    """Return `values` (H, W) with so many bits each, the first in the highest: (H, bytes) uint8."""
    planes = np.unpackbits(values.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - bits :]
    return np.packbits(planes.reshape(len(values), -1), axis=1)


def with_orientation(picture: np.ndarray, orientation: int, kind: str) -> bytes:
    """Return a picture (H, W) or (H, W, 3) RGB as a file of Pillow's `kind` that EXIF turns."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, exif=exif)
    return stream.getvalue()
