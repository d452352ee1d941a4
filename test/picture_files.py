"""Writes the pictures that dataset tests read: RGB images, label files, and PNG files with a palette."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

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


def indexed_png(indices: np.ndarray, palette: Colors, bits: int = 8, alpha: Optional[bytes] = None) -> bytes:
    """Return a PNG file of `indices` (H, W) with 1, 2, 4 or 8 bits each, by the PNG specification."""
    height, width = indices.shape
    planes = np.unpackbits(indices[:, :, None], axis=2)[:, :, 8 - bits :]
    rows = b''.join(b'\0' + np.packbits(row.ravel()).tobytes() for row in planes)
    chunks = [
        (b'IHDR', struct.pack('>IIBBBBB', width, height, bits, 3, 0, 0, 0)),
        (b'PLTE', bytes(channel for color in palette for channel in color)),
        *([(b'tRNS', alpha)] if alpha else []),
        (b'IDAT', zlib.compress(rows)),
        (b'IEND', b''),
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
        for kind, content in chunks
    )
