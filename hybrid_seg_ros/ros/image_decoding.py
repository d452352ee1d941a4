"""Image and CompressedImage messages to RGB arrays; each message is checked before it is read."""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import cv2
import numpy as np

from hybrid_seg_ros.data.encoded_picture import PictureError, open_picture

if TYPE_CHECKING:  # bags are read without ROS 2, too
    from sensor_msgs.msg import CompressedImage, Image

MOST_PIXELS = 2**26


class BadFrameError(ValueError):
    """A message that holds no usable image; the text says what was expected and what came."""


@dataclass(frozen=True)
class _Packed:
    """Pixels of `channels` numbers, one pixel after the other, rows `step` bytes apart."""

    dtype: str
    channels: int
    to_rgb: Optional[int]
    even_width: bool = False
    smallest: int = 1


# OpenCV names a Bayer pattern by the second and third pixel of its second row: its BG is the camera's RGGB.
_BAYER_TO_RGB = {
    'bayer_rggb': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg': cv2.COLOR_BayerGB2RGB,
}
_BAYER_SMALLEST = 3
"""OpenCV answers black, not an error, for a Bayer image with fewer rows or columns."""

_UYVY = _Packed('u1', 2, cv2.COLOR_YUV2RGB_UYVY, even_width=True)
_YUYV = _Packed('u1', 2, cv2.COLOR_YUV2RGB_YUYV, even_width=True)
_COLORS = {
    'rgb': (3, None),
    'bgr': (3, cv2.COLOR_BGR2RGB),
    'rgba': (4, cv2.COLOR_RGBA2RGB),
    'bgra': (4, cv2.COLOR_BGRA2RGB),
    'mono': (1, cv2.COLOR_GRAY2RGB),
}
# Names as in sensor_msgs/image_encodings.hpp, and yuy2, which some drivers write. Those of OpenCV's types are read as
# OpenCV orders colours: grey, BGR, BGRA.
_PACKED = {
    **{f'{name}{bits}': _Packed(f'u{bits // 8}', *color) for bits in (8, 16) for name, color in _COLORS.items()},
    **{
        f'{bits}UC{channels}': _Packed(f'u{bits // 8}', *_COLORS[name])
        for bits in (8, 16)
        for channels, name in ((1, 'mono'), (3, 'bgr'), (4, 'bgra'))
    },
    **{
        f'{name}{bits}': _Packed(f'u{bits // 8}', 1, code, smallest=_BAYER_SMALLEST)
        for bits in (8, 16)
        for name, code in _BAYER_TO_RGB.items()
    },
    **dict.fromkeys(('yuv422', 'uyvy'), _UYVY),
    **dict.fromkeys(('yuv422_yuy2', 'yuyv', 'yuy2'), _YUYV),
    '32FC1': _Packed('f4', 1, cv2.COLOR_GRAY2RGB),
    '32FC3': _Packed('f4', 3, cv2.COLOR_BGR2RGB),
}
_QUARTER_CHROMA = {'nv12': cv2.COLOR_YUV2RGB_NV12, 'nv21': cv2.COLOR_YUV2RGB_NV21}
_FULL_CHROMA = 'nv24'
IMAGE_ENCODINGS = (*_PACKED, *_QUARTER_CHROMA, _FULL_CHROMA)
_BY_LOWER_CASE = {name.lower(): name for name in IMAGE_ENCODINGS}

# ITU-R BT.601, Y from 16 to 235: what OpenCV's conversions from YUV use, too. Rows R, G, B; columns Y, U, V, 1.
_YUV_TO_RGB = np.array(
    [
        [255 / 219, 0.0, 1.596, -16 * 255 / 219 - 128 * 1.596],
        [255 / 219, -0.391, -0.813, -16 * 255 / 219 + 128 * (0.391 + 0.813)],
        [255 / 219, 2.018, 0.0, -16 * 255 / 219 - 128 * 2.018],
    ],
    np.float32,
)

_FORMAT = re.compile(r'([^;]*);\s*(\w+)\s+compressed\s*(\S*)')

_DECODER_LINE = re.compile(
    rb'Corrupt JPEG|Premature end of JPEG|Invalid SOS|Unknown Adobe|Inconsistent progression|libpng (warning|error)'
)
_stderr_lock = threading.Lock()


def image_to_rgb(message: Image) -> np.ndarray:
    """Return the picture as (H, W, 3) uint8 RGB, C-contiguous; without a copy where the message is that already.

    16 bit are scaled to 8 as cv_bridge does it, by 255 / 65535; `is_bigendian` holds for 16 and 32 bit. Floats must be
    finite and from 0 to 1. YUV is taken for BT.601 with Y from 16 to 235, as USB cameras send it.

    Raises BadFrameError for an unknown encoding, a size that `check_size` or the encoding does not allow, a step
    smaller than a row, too little data, or floats out of range.
    """
    name = _BY_LOWER_CASE.get(message.encoding.lower())
    if name is None:
        return _image_to_rgb_by_cv_bridge(message)
    check_size(message.height, message.width)
    if name not in _PACKED:
        return _semi_planar_to_rgb(message, name)
    layout = _PACKED[name]
    pixels = _pixels(message, layout)
    if pixels.dtype != np.uint8:
        pixels = _to_8_bit(pixels, message.encoding)
    return np.ascontiguousarray(pixels) if layout.to_rgb is None else cv2.cvtColor(pixels, layout.to_rgb)


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8 RGB; 16 bit become 8, alpha is left out, EXIF turns nothing.

    The kind is read from the data, which JPEG and PNG are most of; `format` says what the channels are. Raises
    BadFrameError for what is no picture, is not whole, is a depth image, or says a size that so few bytes cannot hold.
    """
    if 'compresseddepth' in message.format.lower():
        raise BadFrameError(f'expected a colour picture, got a depth image (format {message.format!r})')
    data = np.frombuffer(message.data, np.uint8)
    try:
        picture = open_picture(data)
        height, width = picture.size_hw
        check_size(height, width)
        pixels = picture.pixels(turned=False)
    except (PictureError, BadFrameError) as error:
        start = data[:8].tobytes().hex(' ') or 'nothing'
        raise BadFrameError(
            f'{error}; got {data.size} bytes that start with {start} (format {message.format!r})'
        ) from error
    channels = _encoded_channels(message.format)
    if pixels.ndim == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if channels.startswith('rgb') else pixels
    bayer = _BAYER_TO_RGB.get(channels.rstrip('0123456789'))
    if bayer is not None and min(pixels.shape) < _BAYER_SMALLEST:
        raise BadFrameError(f'expected at least {_BAYER_SMALLEST}x{_BAYER_SMALLEST} Bayer pixels, got {width}x{height}')
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if bayer is None else bayer)


@contextmanager
def decoder_complaints(tell: Callable[[str], Any]) -> Iterator[None]:
    """Tell the first thing that libjpeg or libpng has to say of a picture, instead of a line on stderr for each.

    They write to the process's stderr; what others write there meanwhile comes a little later.
    """
    with _stderr_lock, open(os.memfd_create('decoder'), 'r+b') as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            lines = said.read().splitlines(keepends=True)
            complaints = [line for line in lines if _DECODER_LINE.match(line)]
            os.write(2, b''.join(line for line in lines if line not in complaints))
    if complaints:
        tell(complaints[0].decode(errors='replace').strip())


def check_size(height: int, width: int) -> None:
    """Raise BadFrameError for a size that takes too much memory, or one pixel, which OpenCV 4.5 cannot take."""
    if not 1 < height * width <= MOST_PIXELS:
        raise BadFrameError(f'expected an image of 2 to {MOST_PIXELS} pixels, got {width}x{height}')


def grey_values(message: Image) -> np.ndarray:
    """Return the values (H, W) uint8 or uint16 of an Image of one channel as they are. Raises BadFrameError."""
    layout = _PACKED.get(_BY_LOWER_CASE.get(message.encoding.lower(), ''))
    if layout is None or layout.to_rgb != cv2.COLOR_GRAY2RGB or layout.dtype == 'f4':
        raise BadFrameError(f'expected one channel of 8 or 16 bits (mono8, 8UC1, mono16, 16UC1), got '
                            f'{message.encoding!r}')  # fmt: skip
    check_size(message.height, message.width)
    return _pixels(message, layout)[..., 0]


def _pixels(message: Image, layout: _Packed) -> np.ndarray:
    """Return the message's data as (H, W, channels) in this machine's byte order, as a view where that is possible."""
    height, width, step = message.height, message.width, message.step
    dtype = np.dtype(layout.dtype).newbyteorder('>' if message.is_bigendian else '<')
    row_bytes = width * layout.channels * dtype.itemsize
    if layout.even_width and width % 2:
        raise BadFrameError(f'expected an even width ({message.encoding}: two pixels share a colour), got {width}')
    if min(height, width) < layout.smallest:
        raise BadFrameError(
            f'expected at least {layout.smallest}x{layout.smallest} pixels of {message.encoding}, got {width}x{height}'
        )
    if step < row_bytes:
        raise BadFrameError(f'expected step >= {row_bytes} ({width} pixels of {message.encoding}), got step {step}')
    data = np.frombuffer(message.data, np.uint8)
    if layout.channels == 1 and 3 * row_bytes in (step, data.size / height):
        raise BadFrameError(
            f'expected one channel ({message.encoding}), {row_bytes} bytes a row, got three: step {step}, '
            f'{data.size} bytes'
        )
    if data.size < step * height:
        raise BadFrameError(f'expected {step * height} bytes (step {step} x height {height}), got {data.size}')
    strides = (step, layout.channels * dtype.itemsize, dtype.itemsize)
    pixels = np.ndarray((height, width, layout.channels), dtype, buffer=data, strides=strides)
    pixels = pixels.astype(dtype.newbyteorder('='), copy=False)
    return pixels if pixels.flags.aligned else pixels.copy()  # an odd step; OpenCV takes alignment for granted


def _to_8_bit(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """Scale (H, W, C) uint16 or float32 to uint8."""
    if pixels.dtype == np.uint16:
        return cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    if not (pixels.min() >= 0.0 and pixels.max() <= 1.0):  # false for NaN, too
        finite = pixels[np.isfinite(pixels)]
        span = f'{finite.min():g} to {finite.max():g}' if finite.size else 'none'
        raise BadFrameError(
            f'expected {encoding} with finite values from 0 to 1, got {span} and {pixels.size - finite.size} that are '
            'NaN or infinite; is this a depth image?'
        )
    return cv2.convertScaleAbs(pixels, alpha=255.0)


def _semi_planar_to_rgb(message: Image, name: str) -> np.ndarray:
    """Read a plane of Y, height x width, and below it the plane of U and V in turn.

    `height` is the image's and `step` that of Y's rows, as most drivers write it and Isaac ROS and OpenCV's
    conversions read it; rows of U and V are as long (nv12, nv21: half as many) or twice as long (nv24). Some drivers
    (depthai) write another step; data that has exactly the length of the planes without padding is read as that.
    """
    height, width, step = message.height, message.width, message.step
    is_quarter = name in _QUARTER_CHROMA
    if is_quarter and (height % 2 or width % 2):
        raise BadFrameError(f'expected even width and height ({name}: 2x2 pixels share a colour), got {width}x{height}')
    if step < width:
        raise BadFrameError(f'expected step >= {width} ({width} pixels of Y of {message.encoding}), got step {step}')
    rows = height * 3 // 2 if is_quarter else height * 3
    data = np.frombuffer(message.data, np.uint8)
    if data.size < step * rows:
        if data.size != width * rows:
            raise BadFrameError(
                f'expected {step * rows} bytes ({name}: step {step} x height {height} x {"1.5" if is_quarter else 3}), '
                f'got {data.size}'
            )
        step = width
    if is_quarter:
        return cv2.cvtColor(np.ndarray((rows, width), np.uint8, data, strides=(step, 1)), _QUARTER_CHROMA[name])
    luma = np.ndarray((height, width), np.uint8, data, strides=(step, 1))
    chroma = np.ndarray((height, width, 2), np.uint8, data, offset=step * height, strides=(2 * step, 2, 1))
    return cv2.transform(cv2.merge([luma, chroma[..., 0], chroma[..., 1]]), _YUV_TO_RGB)


def _image_to_rgb_by_cv_bridge(message: Image) -> np.ndarray:
    """Leave encodings that are not ours to cv_bridge, where there is one that works."""
    bridge, problem = _working_bridge()
    if bridge is None:
        raise BadFrameError(
            f'unknown encoding {message.encoding!r}; legal are {", ".join(IMAGE_ENCODINGS)} '
            f'(others need cv_bridge: {problem})'
        )
    check_size(message.height, message.width)
    if len(message.data) < message.step * message.height:
        raise BadFrameError(
            f'expected {message.step * message.height} bytes (step x height), got {len(message.data)} bytes'
        )
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, 'rgb8'))
    except Exception as error:  # it raises its own error class, TypeError, ValueError or cv2.error, by version
        raise BadFrameError(
            f'unknown encoding {message.encoding!r}; legal are {", ".join(IMAGE_ENCODINGS)} (cv_bridge: {error})'
        ) from error


@functools.lru_cache(maxsize=1)
def _working_bridge() -> tuple[Optional[Any], str]:
    """Return a CvBridge that converts correctly, or None and why; found out by using it, once.

    Its version does not tell: the package of that name on PyPI is ROS 1's, and the one from apt breaks with numpy 2
    (vision_opencv#535).
    """
    try:
        from cv_bridge import CvBridge
        from sensor_msgs.msg import Image

        message = Image(height=1, width=2, encoding='bgr8', step=6)
        message.data.frombytes(bytes([1, 2, 3, 4, 5, 6]))
        bridge = CvBridge()
        result = np.asarray(bridge.imgmsg_to_cv2(message, 'rgb8'))
    except Exception as error:  # a broken binary module fails in any way; all of them mean that it is unusable
        return None, f'{type(error).__name__}: {error}'
    if result.tolist() != [[[3, 2, 1], [6, 5, 4]]]:
        return None, f'it converts wrongly: bgr 1 2 3, 4 5 6 became {result.tolist()}'
    return bridge, ''


def _encoded_channels(image_format: str) -> str:
    """Return the pixel format that was handed to the encoder, in lower case; empty where nothing says it.

    `format` is "ORIGINAL; CODEC compressed ENCODED" (sensor_msgs/CompressedImage.msg). Encoders take BGR: colours
    handed to one as `rgb8` have red and blue exchanged in the file. Without ENCODED, image_transport hands over Bayer
    mosaics as grey, and to TIFF whatever the camera sent. Other forms, as "jpeg", mean a file as it should be.
    """
    found = _FORMAT.match(image_format.lower())
    if found is None:
        return image_format.strip().lower() if image_format.lower().strip().startswith('bayer') else ''
    original, codec, encoded = (part.strip() for part in found.groups())
    return encoded or (original if original.startswith('bayer') or codec == 'tiff' else '')
