"""Pictures as the bytes of a file: whether they are whole, and their pixels, or the values that a label file stores.

Decoders fill what is missing with grey or black, and most say nothing: each picture is checked before it is used.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Optional, Union

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 - they register themselves

Data = Union[bytes, memoryview, np.ndarray]

JPEG_START = b'\xff\xd8\xff'
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'PPM')
CUT_OFF = 'the file is cut off before the end of the image'
_SOI, _EOI, _FILL = 0xD8, 0xD9, 0xFF
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEGMENTS = 1000
_ORIENTATION = 0x0112
_GREY_MODES = ('1', 'L', 'LA', 'I', 'I;16', 'I;16B', 'I;16L', 'I;16N', 'F')

_BY_OPENCV = ('JPEG', 'PNG', 'BMP')
"""Kinds whose pixels OpenCV decodes: faster than Pillow."""

# Decoders believe the header and make room for that size before they read on. A JPEG spends at least one bit on each
# block of 8x8 pixels, a PNG one on each 8 pixels before deflate, which shrinks to 1/1032 at best.
_PIXELS_PER_BYTE = {'JPEG': 8 * 64, 'PNG': 8 * 1032}


class PictureError(ValueError):
    """Bytes that are no whole picture of a kind that is read here; the message says what is wrong."""


@dataclass(frozen=True)
class EncodedPicture:
    """A picture that is there to its end. `data` (N,) uint8; `size_hw` is as stored, before EXIF turns it."""

    data: np.ndarray
    kind: str
    size_hw: tuple[int, int]
    is_grey: bool

    def pixels(self, turned: bool) -> np.ndarray:
        """Return (H, W) uint8 of a grey picture, else (H, W, 3) RGB; 16 bit become 8, alpha is left out.

        With `turned` as the EXIF orientation says. Raises PictureError.
        """
        image = None
        if self.kind not in _BY_OPENCV:
            image = _loaded(self.data)
            pixels = _to_8_bit(image)
        else:
            flags = cv2.IMREAD_GRAYSCALE if self.is_grey else cv2.IMREAD_COLOR
            pixels = _decode(self.data, flags)
            if not self.is_grey:
                pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        return _turned(pixels, self.orientation(image)) if turned else pixels

    def rgb(self, turned: bool) -> np.ndarray:
        """Return `pixels` as (H, W, 3) uint8 RGB, whatever the picture is."""
        pixels = self.pixels(turned)
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels

    def values(self, turned: bool) -> np.ndarray:
        """Return the values (H, W) uint8 or uint16 as they are stored, of a palette the indices.

        Three equal channels count as one, and alpha as none. Raises PictureError for colours, other
        numbers, and lossy kinds.
        """
        values = _bmp_values(self.data) if self.kind == 'BMP' else None
        if values is not None:
            return values
        image = _loaded(self.data)
        if self.kind in ('JPEG', 'WEBP') or image.info.get('compression') == 'jpeg':
            raise PictureError(f'expected a lossless label file, got {self.kind}, whose lossy compression blends ids')
        raw_mode = _raw_mode(image)
        if ';16' in raw_mode and not image.mode.startswith('I'):  # Pillow keeps the high bytes of colours alone
            values = _decode(self.data, cv2.IMREAD_UNCHANGED)
        else:
            values = _as_stored(np.asarray(image), image.mode, raw_mode)
        if values.ndim == 3:
            colors = values[..., :1] if image.mode in ('LA', 'PA') else values[..., :3]
            if not (colors == colors[..., :1]).all():
                raise PictureError('expected one class id per pixel, got colours (each class needs its color)')
            values = np.ascontiguousarray(colors[..., 0])
        if values.dtype == np.int32 and 0 <= values.min() and values.max() <= 0xFFFF:  # 16 bit, in old Pillows
            values = values.astype(np.uint16)
        if values.dtype not in (np.uint8, np.uint16):
            raise PictureError(f'expected labels of 8 or 16 bits, got {values.dtype}')
        return _turned(values, self.orientation(image)) if turned else values

    def has_wide_colors(self) -> bool:
        """Tell whether it has more than 8 bits a channel."""
        image = _opened(self.data)
        return image.mode in ('I', 'F') or '16' in image.mode or ';16' in _raw_mode(image)

    def orientation(self, loaded: Optional[Image.Image] = None) -> int:
        """Return the EXIF orientation, 1 without one; of a `loaded` TIFF what Pillow has left to do."""
        if self.kind == 'PNG' and b'eXIf' not in self.data.tobytes():
            return 1  # to look for one, Pillow would decode it all
        try:
            return (_opened(self.data) if loaded is None else loaded).getexif().get(_ORIENTATION, 1)
        except Exception:  # noqa: BLE001 - damaged metadata raise many things; the picture is whole
            return 1


def open_picture(data: Data) -> EncodedPicture:
    """Check a picture's bytes for being whole, up to its own end: what comes behind is padding, and is left out.

    Raises PictureError for what is cut off, damaged, no picture, or of a size that so few bytes cannot hold.
    """
    data = np.frombuffer(data, np.uint8)
    if not data.size:
        raise PictureError('the file is empty')
    if data[:3].tobytes() == JPEG_START:
        picture = _open_jpeg(data)
    else:
        image = _opened(data)
        if getattr(image, 'is_animated', False) and image.format != 'TIFF':
            raise PictureError(f'expected one picture, got an animation of {image.n_frames}')
        picture = EncodedPicture(data, image.format, (image.height, image.width), image.mode in _GREY_MODES)
    height, width = picture.size_hw
    if height * width == 1:
        raise PictureError('expected more than one pixel')  # OpenCV 4.5 takes none of colour
    if not 0 < height * width <= data.size * _PIXELS_PER_BYTE.get(picture.kind, height * width):
        raise PictureError(f'expected a {picture.kind} picture that fits its {data.size} bytes, got {width}x{height} '
                           'pixels')  # fmt: skip
    if picture.kind == 'BMP' and data.size < int.from_bytes(data[2:6].tobytes(), 'little'):
        raise PictureError(CUT_OFF)
    if picture.kind == 'PNG':
        _checked(image.verify)  # every chunk's checksum, and that the last one is there
    return picture


def _open_jpeg(data: np.ndarray) -> EncodedPicture:
    """Walk a JPEG from segment to segment (ITU-T T.81, B.1.1), so that no other picture's end is taken for its own.

    There may be a thumbnail within, and the rest of an older, longer frame behind the end. Behind half a picture, which
    has no end, such a rest cannot be told from the other half.
    """
    starts = np.flatnonzero(data[:-1] == 0xFF)
    codes = data[starts + 1]
    is_marker = (codes != 0) & (codes != _FILL) & ((codes < 0xD0) | (codes > 0xD7))  # else coded data, restart marks
    starts, codes = starts[is_marker], codes[is_marker]
    size_hw, channels, position = None, 0, 2
    for _ in range(_SEGMENTS):
        index = int(np.searchsorted(starts, position))
        if index == len(starts) or codes[index] == _SOI:
            raise PictureError(CUT_OFF)
        start, code = int(starts[index]), int(codes[index])
        if code == _EOI:
            if size_hw is None:
                raise PictureError('not a readable image: it has no header')
            return EncodedPicture(data[: start + 2], 'JPEG', size_hw, channels == 1)
        if start + 10 <= data.size and code in _FRAME_HEADERS:
            size_hw, channels = struct.unpack_from('>HH', data, start + 5), int(data[start + 9])
        length = int.from_bytes(data[start + 2 : start + 4].tobytes(), 'big')
        position = start + 2 + length
    raise PictureError(f'not a readable image: more than {_SEGMENTS} JPEG segments')


def _opened(data: np.ndarray) -> Image.Image:
    """Read the header with Pillow."""
    return _checked(lambda: Image.open(io.BytesIO(data), formats=FORMATS))


def _loaded(data: np.ndarray) -> Image.Image:
    image = _opened(data)
    raw_mode = _raw_mode(image)
    _checked(image.load)
    image.info['raw mode'] = raw_mode  # loading forgets it
    return image


def _checked(step):
    """Call a step of Pillow, whose readers raise whatever a damaged file leads them to."""
    try:
        return step()
    except UnidentifiedImageError as error:
        raise PictureError(f'not a readable image ({", ".join(FORMATS)}), or cut off') from error
    except SyntaxError as error:
        raise PictureError(f'the file is damaged ({error})') from error
    except Exception as error:  # noqa: BLE001
        is_cut = 'truncated' in str(error).lower()
        raise PictureError(CUT_OFF if is_cut else f'not a readable image: {error}') from error


def _raw_mode(image: Image.Image) -> str:
    """Return how the file stores its pixels, in Pillow's words: 'L;4' are four bits, which it stretches to 0..255."""
    if 'raw mode' in image.info:
        return image.info['raw mode']
    arguments = image.tile[0][3] if image.tile else ''
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _as_stored(values: np.ndarray, mode: str, raw_mode: str) -> np.ndarray:
    """Undo what Pillow does to grey values of few bits, and to those whose 0 is white."""
    if mode not in ('1', 'L'):
        return values.astype(values.dtype.newbyteorder('='))
    depth, _, order = raw_mode.partition(';')
    bits = 1 if depth == '1' else int(''.join(filter(str.isdigit, order)) or 8)
    values = values.astype(np.uint8) if mode == '1' else values // (255 // (2**bits - 1))
    return 2**bits - 1 - values if order.endswith('I') or 'IR' in order else values


def _bmp_values(data: np.ndarray) -> Optional[np.ndarray]:
    """Return the indices (H, W) uint8 of a BMP of 1, 4 or 8 bits, None of a compressed one or one of OS/2.

    Pillow mistakes the depth of some whose palette is grey.
    """
    offset, header, width, height, _, bits, compression = struct.unpack_from('<IIiiHHI', data, 10)
    if header < 40 or compression or bits not in (1, 4, 8):
        return None
    row_bytes = (width * bits + 31) // 32 * 4
    if data.size < offset + row_bytes * abs(height):
        raise PictureError(CUT_OFF)
    rows = np.frombuffer(data, np.uint8, row_bytes * abs(height), offset).reshape(abs(height), row_bytes)
    bit_planes = np.unpackbits(rows, axis=1).reshape(abs(height), -1, bits)
    values = (np.packbits(bit_planes, axis=2)[..., 0] >> (8 - bits))[:, :width]
    return values if height < 0 else values[::-1]


def _to_8_bit(image: Image.Image) -> np.ndarray:
    if image.mode == 'F':
        raise PictureError('expected 8 or 16 bits a channel, got floats')
    if image.mode.startswith('I'):
        wide = np.asarray(image).astype(np.float32)
        if wide.min() < 0 or wide.max() > 0xFFFF:
            raise PictureError(f'expected 8 or 16 bits a channel, got {wide.min():g} to {wide.max():g}')
        return cv2.convertScaleAbs(wide, alpha=255 / 0xFFFF)
    return np.array(image.convert('L' if image.mode in _GREY_MODES else 'RGB'))


def _decode(data: np.ndarray, flags: int) -> np.ndarray:
    try:
        picture = cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise PictureError(f'not a readable image: {error.err}') from error
    if picture is None:
        raise PictureError('not a readable image: it cannot be decoded')
    return picture


def _turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (H, W, ...) as an EXIF orientation says; 5 to 8 swap its sides."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)
