"""CompressedImage messages to RGB arrays: checked for being whole before they are decoded."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from hybrid_seg_ros.data.encoded_picture import PictureError, open_picture
from hybrid_seg_ros.ros.image_decoding import BAYER_SMALLEST, BAYER_TO_RGB, BadFrameError, check_size

if TYPE_CHECKING:  # bags are read without ROS 2, too
    from sensor_msgs.msg import CompressedImage

_FORMAT = re.compile(r'([^;]*);\s*(\w+)\s+compressed\s*(\S*)')

_DECODER_LINE = re.compile(
    rb'Corrupt JPEG|Premature end of JPEG|Invalid SOS|Unknown Adobe|Inconsistent progression|libpng (warning|error)'
)
_stderr_lock = threading.Lock()


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8 RGB; 16 bit become 8, alpha is left out, EXIF turns nothing.

    The kind is read from the data, which JPEG and PNG are most of; `format` says what the channels are, see
    `encoded_channels`. Raises BadFrameError for what is no picture, is not whole, is a depth image, or says a size that
    so few bytes cannot hold.
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
    channels = encoded_channels(message.format)
    if pixels.ndim == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if channels.startswith('rgb') else pixels
    bayer = BAYER_TO_RGB.get(channels.rstrip('0123456789'))
    if bayer is not None and min(pixels.shape) < BAYER_SMALLEST:
        raise BadFrameError(f'expected at least {BAYER_SMALLEST}x{BAYER_SMALLEST} Bayer pixels, got {width}x{height}')
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


def encoded_channels(image_format: str) -> str:
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
