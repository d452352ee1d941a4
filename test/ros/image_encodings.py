"""Image messages of an RGB picture in every encoding that the node reads, written from the encodings' definitions."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image

BAYER = ('rggb', 'bggr', 'gbrg', 'grbg')
COLORS = {'rgb': 'RGB', 'bgr': 'BGR', 'rgba': 'RGBA', 'bgra': 'BGRA'}
OPENCV_COLORS = {'C3': 'BGR', 'C4': 'BGRA'}
EXACT = (
    'rgb8', 'bgr8', 'rgba8', 'bgra8', '8UC3', '8UC4', 'rgb16', 'bgr16', 'rgba16', 'bgra16', '16UC3', '16UC4', '32FC3',
)  # fmt: skip
GREY = ('mono8', 'mono16', '8UC1', '16UC1', '32FC1')
YUV = ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'yuy2', 'nv12', 'nv21', 'nv24')
ENCODINGS = (*EXACT, *GREY, *(f'bayer_{pattern}{bits}' for pattern in BAYER for bits in (8, 16)), *YUV)


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, reddish and smooth: interpolated colours hardly differ, swapped channels do."""
    down, right = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    red, green, blue = 170 + 60 * down + 0 * right, 90 + 40 * right + 0 * down, 30 + 20 * down + 20 * right
    return np.dstack([red, green, blue]).round().astype(np.uint8)


def encode(rgb: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """Return `rgb` (H, W, 3) uint8 as an Image; each row is followed by `padding` bytes. Grey ones hold its green."""
    if encoding in ('nv12', 'nv21', 'nv24'):
        planes = _semi_planar(rgb, encoding)
    else:
        samples = _to_depth(_packed(rgb, encoding), encoding)
        planes = [samples.astype(samples.dtype.newbyteorder('>' if big_endian else '<'))]
    # as memory is laid out where U and V have their own rows: twice as long, they have twice the padding
    rows = [_padded(plane, padding * plane[0].nbytes // planes[0][0].nbytes) for plane in planes]
    message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, is_bigendian=int(big_endian))
    message.step = rows[0].shape[1]
    message.data.frombytes(b''.join(plane.tobytes() for plane in rows))
    return message


def _packed(rgb: np.ndarray, encoding: str) -> np.ndarray:
    name = encoding.rstrip('0123456789')
    if name in COLORS:
        return _ordered(rgb, COLORS[name])
    if encoding[-2:] in OPENCV_COLORS:
        return _ordered(rgb, OPENCV_COLORS[encoding[-2:]])
    if encoding in GREY:
        return rgb[..., 1]
    if name.startswith('bayer_'):
        mosaic = np.empty(rgb.shape[:2], np.uint8)
        for index, letter in enumerate(name[-4:]):
            place = np.s_[index // 2 :: 2, index % 2 :: 2]
            mosaic[place] = rgb[..., 'rgb'.index(letter)][place]
        return mosaic
    y, u, v = _yuv(rgb)
    u, v = (chroma.reshape(len(rgb), -1, 2).mean(2) for chroma in (u, v))
    quads = [u, y[:, ::2], v, y[:, 1::2]] if encoding in ('yuv422', 'uyvy') else [y[:, ::2], u, y[:, 1::2], v]
    return np.stack(quads, axis=2).round().astype(np.uint8)


def _semi_planar(rgb: np.ndarray, encoding: str) -> list[np.ndarray]:
    y, u, v = _yuv(rgb)
    if encoding != 'nv24':
        height, width = y.shape
        u, v = (chroma.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for chroma in (u, v))
    chroma = np.stack([v, u] if encoding == 'nv21' else [u, v], axis=2)
    return [plane.round().astype(np.uint8) for plane in (y, chroma)]


def _yuv(rgb: np.ndarray) -> list[np.ndarray]:
    """Return Y, U and V of ITU-R BT.601, Y from 16 to 235, as float arrays (H, W)."""
    red, green, blue = np.moveaxis(rgb / 255.0, 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return [16 + 219 * luma, 128 + 112 * (blue - luma) / 0.886, 128 + 112 * (red - luma) / 0.701]


def _ordered(rgb: np.ndarray, letters: str) -> np.ndarray:
    alpha = np.full(rgb.shape[:2], 77, np.uint8)
    return np.stack([alpha if letter == 'A' else rgb[..., 'RGB'.index(letter)] for letter in letters], axis=2)


def _to_depth(samples: np.ndarray, encoding: str) -> np.ndarray:
    if '32F' in encoding:
        return (samples / 255.0).astype(np.float32)
    if encoding.startswith('16U') or encoding.endswith('16'):
        # not a multiple of 257, whose two bytes would be the same; rounding makes the 8 bit value of it again
        return np.minimum(samples.astype(np.uint32) * 257 + 40, 65535).astype(np.uint16)
    return samples


def _padded(plane: np.ndarray, padding: int) -> np.ndarray:
    """Return the plane's bytes, a row per row, with `padding` bytes after each."""
    rows = np.ascontiguousarray(plane).reshape(len(plane), -1).view(np.uint8)
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
