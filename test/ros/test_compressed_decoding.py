"""CompressedImage messages to RGB arrays."""

import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from image_encodings import BAYER, encode, gradient
from sensor_msgs.msg import CompressedImage

from hybrid_seg_ros.ros.compressed_decoding import compressed_to_rgb
from hybrid_seg_ros.ros.image_decoding import BadFrameError


def message(data, image_format=''):
    result = CompressedImage(format=image_format)
    result.data.frombytes(data)
    return result


def file(kind, pixels, *settings):
    """Return `pixels`, in OpenCV's order of colours, as a file of the kind."""
    return cv2.imencode(kind, pixels, settings)[1].tobytes()


def noise(height=40, width=40):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


GREY = gradient()[..., 1]
BGR = gradient()[..., ::-1]
BGRA = np.dstack([BGR, np.full(BGR.shape[:2], 77, np.uint8)])
JPEG, PNG = file('.jpg', noise()), file('.png', noise())
PROGRESSIVE = cv2.IMWRITE_JPEG_PROGRESSIVE, 1


@pytest.mark.parametrize('image_format', ['png', 'jpeg', 'rgb8; png compressed bgr8', ''])
def test_png_is_read_exactly_whatever_the_format_field_says(image_format):
    np.testing.assert_array_equal(compressed_to_rgb(message(file('.png', noise()), image_format)), noise()[..., ::-1])


@pytest.mark.parametrize(
    ('pixels', 'expected', 'tolerance'),
    [
        (GREY, np.dstack([GREY] * 3), 0),
        (BGR, gradient(), 0),
        (BGRA, gradient(), 0),
        (GREY.astype(np.uint16) * 257, np.dstack([GREY] * 3), 1),
        (BGR.astype(np.uint16) * 257, gradient(), 1),
        (BGRA.astype(np.uint16) * 257, gradient(), 1),
        ((GREY > 100).astype(np.uint8) * 255, np.dstack([(GREY > 100) * 255] * 3), 0),
    ],
    ids=['grey', 'BGR', 'BGRA', 'grey16', 'BGR16', 'BGRA16', 'black and white'],
)
def test_every_kind_of_png(pixels, expected, tolerance):
    result = compressed_to_rgb(message(file('.png', pixels)))
    assert result.dtype == np.uint8 and result.flags.c_contiguous
    np.testing.assert_allclose(result.astype(int), expected, atol=tolerance)


@pytest.mark.parametrize('settings', [(), PROGRESSIVE], ids=['baseline', 'progressive'])
@pytest.mark.parametrize(
    ('pixels', 'expected'), [(BGR, gradient()), (GREY, np.dstack([GREY] * 3))], ids=['color', 'grey']
)
def test_jpeg_is_read_as_rgb(pixels, expected, settings):
    result = compressed_to_rgb(message(file('.jpg', pixels, *settings)))
    np.testing.assert_allclose(result.astype(int), expected, atol=6)


@pytest.mark.parametrize('data', [JPEG, PNG], ids=['jpeg', 'png'])
def test_zeros_after_the_end_are_read_over(data):
    np.testing.assert_array_equal(compressed_to_rgb(message(data + bytes(10))), compressed_to_rgb(message(data)))


def test_the_largest_shrinkage_is_read():
    for kind in ('.png', '.jpg'):
        data = file(kind, np.zeros((1080, 1920), np.uint8), *PROGRESSIVE, cv2.IMWRITE_PNG_COMPRESSION, 9)
        assert len(data) < 40_000
        assert compressed_to_rgb(message(data)).shape == (1080, 1920, 3)


@pytest.mark.parametrize('pattern', BAYER)
@pytest.mark.parametrize('bits', [8, 16])
def test_a_bayer_mosaic_is_compressed_as_grey_and_only_the_format_says_so(pattern, bits):
    mosaic = np.frombuffer(encode(gradient(), f'bayer_{pattern}8').data, np.uint8).reshape(GREY.shape)
    pixels = mosaic if bits == 8 else mosaic.astype(np.uint16) * 257
    result = compressed_to_rgb(message(file('.png', pixels), f'bayer_{pattern}{bits}; png compressed '))
    np.testing.assert_allclose(result.astype(int), gradient(), atol=8)


def png_of_size(height, width):
    header = b'IHDR' + struct.pack('>II', width, height) + PNG[24:29]
    return PNG[:12] + header + struct.pack('>I', zlib.crc32(header)) + PNG[33:]


def jpeg_of_size(height, width):
    at = JPEG.index(b'\xff\xc0') + 5
    return JPEG[:at] + struct.pack('>HH', height, width) + JPEG[at + 4 :]


def png_without_a_chunk():
    parts = file('.png', noise(100, 100))
    first = 8 + 12 + 13
    length = struct.unpack('>I', parts[first : first + 4])[0]
    assert parts[first + 4 : first + 8] == b'IDAT' and parts[first + 12 + length + 4 :].startswith(b'IDAT')
    return parts[:first] + parts[first + 12 + length :]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ('data', 'image_format', 'problem'),
    [
        (b'', 'jpeg', 'got 0 bytes that start with nothing'),
        (b'GIF89a and more', 'gif', "JPEG or PNG picture, got 15 bytes that start with 47 49 46 .*format 'gif'"),
        (JPEG[:-30], 'jpeg', 'JPEG picture of .* is cut off'),
        (JPEG[:3], 'jpeg', 'JPEG picture of 3 bytes is cut off'),
        (b'\xff\xd8\xff\xe0 not a JPEG \xff\xd9', 'jpeg', 'cannot be decoded'),
        (b'\xff\xd8' + b'\xff' * 5000 + b'\xff\xd9', 'jpeg', 'cannot be decoded: it has no header'),
        (jpeg_of_size(0, 0), 'jpeg', 'got 0x0 pixels'),
        (jpeg_of_size(20000, 20000), 'jpeg', f'JPEG picture that fits its {len(JPEG)} bytes, got 20000x20000'),
        (jpeg_of_size(65535, 65535), 'jpeg', 'got 65535x65535'),
        (PNG[:60], 'png', 'PNG picture of 60 bytes is cut off'),
        (PNG[:8], 'png', 'PNG picture of 8 bytes is cut off'),
        (PNG[:-12], 'png', 'is cut off'),
        (PNG[: len(PNG) // 2] + PNG[-12:], 'png', 'is cut off'),
        (flipped(PNG, len(PNG) // 2), 'png', 'cannot be decoded'),
        (png_without_a_chunk(), 'png', 'cannot be decoded'),
        (PNG[:8] + PNG[33:], 'png', 'cannot be decoded: it has no header'),
        (png_of_size(0, 40), 'png', 'got 40x0 pixels'),
        (png_of_size(30000, 30000), 'png', f'PNG picture that fits its {len(PNG)} bytes, got 30000x30000'),
        (png_of_size(2**31, 2**31), 'png', 'got 2147483648x2147483648'),
        (file('.png', GREY.astype(np.uint16)), '16UC1; compressedDepth', "depth image .*'16UC1; compressedDepth'"),
        (b'0123456789ab' + PNG, '32FC1; compressedDepth png', 'expected a colour picture, got a depth image'),
        (file('.png', GREY[:2]), 'bayer_rggb8; png compressed ', 'at least 3x3 Bayer pixels, got 32x2'),
    ],
)  # fmt: skip
def test_broken_files_and_others_are_refused(data, image_format, problem):
    tracemalloc.start()
    with pytest.raises(BadFrameError, match=problem):
        compressed_to_rgb(message(data, image_format))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize('data', [JPEG, PNG], ids=['jpeg', 'png'])
def test_no_cut_and_no_changed_byte_crashes(data):
    for at in range(0, len(data), 7):
        for broken in (data[:at], flipped(data, at)):
            try:
                assert compressed_to_rgb(message(broken)).ndim == 3
            except BadFrameError:
                continue
            assert len(broken) == len(data), 'a file that was cut was read'
