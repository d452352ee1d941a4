"""CompressedImage messages to RGB arrays: JPEG and PNG, checked for being whole before they are decoded."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Optional

import cv2
import numpy as np

from hybrid_seg_ros.evaluation.png_end import PNG_START, has_png_end
from hybrid_seg_ros.ros.image_decoding import BAYER_SMALLEST, BAYER_TO_RGB, BadFrameError

if TYPE_CHECKING:  # bags are read without ROS 2, too
    from sensor_msgs.msg import CompressedImage

_JPEG_START, _JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
_JPEG_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEGMENTS = 1000

# Decoders believe the header and make room for that size before they read on. A JPEG spends at least one bit on each
# block of 8x8 pixels, a PNG one on each 8 pixels before deflate, which shrinks to 1/1032 at best.
_PIXELS_PER_BYTE = {'JPEG': 8 * 64, 'PNG': 8 * 1032}
_MOST_PIXELS = 2**26


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """Return a JPEG or PNG picture as (H, W, 3) uint8 RGB; 16 bit become 8, alpha is left out.

    The kind is read from the data: the `format` field is written in too many ways to rely on. Two things are only said
    there: that it is a depth image, and that the picture is a Bayer mosaic, which image_transport compresses as grey.

    Raises BadFrameError for anything else, a broken file, or a size that so few bytes cannot hold.
    """
    if 'compresseddepth' in message.format.lower():
        raise BadFrameError(f'expected a colour picture, got a depth image (format {message.format!r})')
    data = np.frombuffer(message.data, np.uint8)
    kind, size_hw = _kind_and_size(memoryview(data), message.format)
    height, width = size_hw
    if not 0 < height * width <= min(_MOST_PIXELS, data.size * _PIXELS_PER_BYTE[kind]):
        raise BadFrameError(f'expected a {kind} picture that fits its {data.size} bytes, got {width}x{height} pixels')
    bayer = BAYER_TO_RGB.get(message.format.split(';')[0].strip().lower().rstrip('0123456789'))
    color = cv2.IMREAD_COLOR if bayer is None else cv2.IMREAD_GRAYSCALE
    try:
        picture = cv2.imdecode(data, color | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise BadFrameError(f'{kind} picture of {data.size} bytes cannot be decoded: {error}') from error
    if picture is None:
        raise BadFrameError(f'{kind} picture of {data.size} bytes (format {message.format!r}) cannot be decoded')
    if bayer is not None and min(picture.shape) < BAYER_SMALLEST:
        raise BadFrameError(f'expected at least {BAYER_SMALLEST}x{BAYER_SMALLEST} Bayer pixels, got {width}x{height}')
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB if bayer is None else bayer)


def _kind_and_size(data: memoryview, image_format: str) -> tuple[str, tuple[int, int]]:
    """Return 'JPEG' or 'PNG' and (height, width) of a file that is there to its end. Raises BadFrameError."""
    start = bytes(data[:8])
    if start.startswith(_JPEG_START):
        kind, size_hw, is_whole = 'JPEG', _jpeg_size_hw(data), _has_jpeg_end(data)
    elif start == PNG_START:
        kind, size_hw, is_whole = 'PNG', _png_size_hw(data), has_png_end(data)
    else:
        raise BadFrameError(
            f'expected a JPEG or PNG picture, got {len(data)} bytes that start with {start.hex(" ") or "nothing"} '
            f'(format {image_format!r})'
        )
    # Some OpenCV versions fill up what is missing with grey or black and say nothing.
    if not is_whole:
        raise BadFrameError(f'{kind} picture of {len(data)} bytes is cut off: it has no end marker')
    if size_hw is None:
        raise BadFrameError(f'{kind} picture of {len(data)} bytes cannot be decoded: it has no header')
    return kind, size_hw


def _has_jpeg_end(data: memoryview) -> bool:
    """Return whether the end marker is there; some cameras pad the end with zeros."""
    return bytes(data[-64:]).rstrip(b'\0').endswith(_JPEG_END)


def _jpeg_size_hw(data: memoryview) -> Optional[tuple[int, int]]:
    """Return what the frame header says (ITU-T T.81, B.2.2); None if there is none."""
    position = 2
    for _ in range(_JPEG_SEGMENTS):
        if position + 9 > len(data) or data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker in _JPEG_FRAME_HEADERS:
            return struct.unpack_from('>HH', data, position + 5)
        if marker == 0xFF:  # a fill byte
            position += 1
        else:
            position += 2 + struct.unpack_from('>H', data, position + 2)[0]
    return None


def _png_size_hw(data: memoryview) -> Optional[tuple[int, int]]:
    """Return what the first chunk says; None if it is not the header."""
    if data[12:16] != b'IHDR' or len(data) < 24:
        return None
    width, height = struct.unpack_from('>II', data, 16)
    return height, width
