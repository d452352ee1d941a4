"""CompressedImage messages to RGB arrays."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from image_encodings import BAYER, encode, gradient
from picture_files import with_orientation
from sensor_msgs.msg import CompressedImage
from traced_memory import traced_memory

from hybrid_seg_ros.ros.image_decoding import BadFrameError, compressed_to_rgb, decoder_complaints


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
JPEG, PNG, TIFF = (file(kind, noise()) for kind in ('.jpg', '.png', '.tiff'))
PROGRESSIVE = cv2.IMWRITE_JPEG_PROGRESSIVE, 1


AS_THEY_ARE = (
    '', 'jpeg', 'jpg', 'png', 'PNG', 'tiff', 'webp', 'rgb8', 'bgr8', 'bgr8; jpeg compressed bgr8', 'jpeg; rgb8',
    'rgb8; jpeg compressed bgr8', 'rgb8;jpeg compressed bgr8', ' RGB8 ;  JPEG  Compressed   BGR8 ',
    'rgb8; jpeg compressed ', 'rgb8; jpeg compressed', 'bgr8; png compressed ', 'rgba8; jpeg compressed bgr8',
    'bgra8; png compressed bgra8', 'rgb16; png compressed bgr16', 'bayer_rggb8; jpeg compressed bgr8',
    '8UC3; png compressed ', 'yuv422_yuy2; jpeg compressed bgr8', 'bgr8; tiff compressed ',
    'bayer_rggb8; png compressed ', 'bayer_rggb8',
)  # fmt: skip
EXCHANGED = (
    'rgb8; jpeg compressed rgb8', 'bgr8; jpeg compressed rgb8', 'bgr8; png compressed rgb8', 'rgba8; tiff compressed',
    'RGB8;JPEG compressed RGB8', 'rgba8; png compressed rgba8', 'bgra8; jpeg compressed rgb8', 'rgb8; tiff compressed ',
    'rgb16; png compressed rgb16', 'bayer_rggb8; png compressed rgb8', '  rgb8  ;  png  compressed  rgb8',
)  # fmt: skip


def test_what_decoders_complain_of_is_told_and_what_others_write_to_stderr_goes_on(capfd):
    profile = b'iCCPprofile\0\0' + zlib.compress(b'not a profile')
    chunk = struct.pack('>I', len(profile) - 4) + profile + struct.pack('>I', zlib.crc32(profile))
    told = []
    for data in (JPEG[:-2] + b'stray bytes' + JPEG[-2:], PNG[:33] + chunk + PNG[33:], JPEG):
        with decoder_complaints(told.append):
            assert compressed_to_rgb(message(data)).shape == (40, 40, 3)
            os.write(2, b'a line of another thread\n')
    with pytest.raises(BadFrameError), decoder_complaints(told.append):
        os.write(2, b'a line of another thread\n')
        compressed_to_rgb(message(b'no picture'))
    assert [text.split(':')[0] for text in told] == ['Corrupt JPEG data', 'libpng warning']
    assert capfd.readouterr().err == 4 * 'a line of another thread\n'


@pytest.mark.parametrize('image_format', [*AS_THEY_ARE, *EXCHANGED])
def test_the_format_says_in_which_order_colours_were_encoded(image_format):
    """Encoders take BGR; what is encoded as RGB has red and blue exchanged for all who read it as any file."""
    encoded = gradient() if image_format in EXCHANGED else BGR
    np.testing.assert_array_equal(compressed_to_rgb(message(file('.png', encoded), image_format)), gradient())


@pytest.mark.parametrize('kind', ['.png', '.jpg', '.tiff', '.webp', '.bmp'])
def test_every_kind_of_file_is_read_in_colour_and_grey(kind):
    for image_format, encoded in (('', BGR), (f'bgr8; {kind[1:]} compressed rgb8', gradient())):
        result = compressed_to_rgb(message(file(kind, encoded), image_format))
        np.testing.assert_allclose(result.astype(int), gradient(), atol=6)
    result = compressed_to_rgb(message(file(kind, GREY)))
    np.testing.assert_allclose(result.astype(int), np.dstack([GREY] * 3), atol=6)


@pytest.mark.parametrize('image_format', [
    *AS_THEY_ARE[:-2], *EXCHANGED, 'mono8; jpeg compressed ', 'mono8; jpeg compressed mono8', 'mono16; png compressed',
    'MONO8; PNG compressed', 'bayer_rggb8; jpeg compressed mono8', 'bayer_grbg16; jpeg compressed mono8',
    '16UC1; png compressed ',
])  # fmt: skip
def test_grey_is_grey_unless_it_is_a_mosaic(image_format):
    np.testing.assert_array_equal(compressed_to_rgb(message(file('.png', GREY), image_format)), np.dstack([GREY] * 3))


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
@pytest.mark.parametrize('padding', [bytes(9000), b' ' * 9000, b'\xff' * 9000, JPEG[-999:]],
                         ids=['zeros', 'blanks', 'ff', 'rest of an older frame'])  # fmt: skip
def test_what_is_after_the_end_is_read_over(data, padding):
    np.testing.assert_array_equal(compressed_to_rgb(message(data + padding)), compressed_to_rgb(message(data)))


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_exif_turns_nothing_that_comes_from_a_camera(kind):
    data = with_orientation(gradient(), 6, kind)
    np.testing.assert_allclose(compressed_to_rgb(message(data)).astype(int), gradient(), atol=6)


def test_the_largest_shrinkage_is_read():
    for kind in ('.png', '.jpg'):
        data = file(kind, np.zeros((1080, 1920), np.uint8), *PROGRESSIVE, cv2.IMWRITE_PNG_COMPRESSION, 9)
        assert len(data) < 40_000
        assert compressed_to_rgb(message(data)).shape == (1080, 1920, 3)


@pytest.mark.parametrize(('pattern', 'bits', 'kind', 'image_format'), [
    *((pattern, 8, '.png', 'bayer_{}; png compressed ') for pattern in BAYER),
    ('rggb', 16, '.png', 'bayer_{}; png compressed '), ('grbg', 8, '.png', 'BAYER_{};png compressed'),
    ('bggr', 8, '.png', 'bayer_{}'), ('gbrg', 16, '.png', 'bayer_{0}; png compressed bayer_{0}'),
    ('grbg', 16, '.tiff', 'bayer_{}; tiff compressed '),
])  # fmt: skip
def test_a_bayer_mosaic_is_compressed_as_grey_and_only_the_format_says_so(pattern, bits, kind, image_format):
    mosaic = np.frombuffer(encode(gradient(), f'bayer_{pattern}8').data, np.uint8).reshape(GREY.shape)
    pixels = mosaic if bits == 8 else mosaic.astype(np.uint16) * 257
    result = compressed_to_rgb(message(file(kind, pixels), image_format.format(f'{pattern}{bits}')))
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
        (b'GIF89a and more', 'gif', "not a readable image .*got 15 bytes that start with 47 49 46 .*format 'gif'"),
        (JPEG[:-30], 'jpeg', 'cut off before the end'),
        (JPEG[:3], 'jpeg', 'cut off before the end of the image; got 3 bytes'),
        (JPEG[: len(JPEG) // 2] + bytes(5000), 'jpeg', 'cut off before the end'),
        (JPEG[: len(JPEG) // 2] + JPEG, 'jpeg', 'cut off before the end'),
        (b'\xff\xd8\xff\xe0\x00\x0dnot a JPEG.\xff\xd9', 'jpeg', 'it has no header'),
        (b'\xff\xd8' + b'\xff' * 5000 + b'\xff\xd9', 'jpeg', 'it has no header'),
        (JPEG[:2] + b'\xff\xe0\x00\x02' * 2000 + JPEG[2:], 'jpeg', 'more than 1000 JPEG segments'),
        (jpeg_of_size(0, 0), 'jpeg', 'got 0x0 pixels'),
        (jpeg_of_size(20000, 20000), 'jpeg', f'JPEG picture that fits its {len(JPEG)} bytes, got 20000x20000'),
        (jpeg_of_size(65535, 65535), 'jpeg', 'got 65535x65535'),
        (PNG[:60], 'png', 'cut off before the end'),
        (PNG[:8], 'png', 'cut off'),
        (PNG[:-12], 'png', 'cut off before the end'),
        (PNG[: len(PNG) // 2] + PNG[-12:], 'png', 'cut off before the end'),
        (flipped(PNG, len(PNG) // 2), 'png', 'damaged .*IDAT'),
        (png_without_a_chunk(), 'png', 'cannot be decoded'),
        (PNG[:8] + PNG[33:], 'png', 'not a readable image'),
        (png_of_size(0, 40), 'png', 'not a readable image'),
        (png_of_size(8000, 8000), 'png', f'PNG picture that fits its {len(PNG)} bytes, got 8000x8000'),
        (png_of_size(30000, 30000), 'png', '900000000 pixels'),
        (file('.png', np.zeros((8200, 8200), np.uint8)), 'png', '2 to 67108864 pixels, got 8200x8200'),
        (TIFF[:-200], 'tiff', 'cut off'),
        (file('.png', GREY.astype(np.uint16)), '16UC1; compressedDepth', "depth image .*'16UC1; compressedDepth'"),
        (b'0123456789ab' + PNG, '32FC1; compressedDepth png', 'expected a colour picture, got a depth image'),
        (file('.png', GREY[:2]), 'bayer_rggb8; png compressed ', 'at least 3x3 Bayer pixels, got 32x2'),
    ],
)  # fmt: skip
def test_broken_files_and_others_are_refused(data, image_format, problem):
    with traced_memory() as memory, pytest.raises(BadFrameError, match=problem):
        compressed_to_rgb(message(data, image_format))
    assert memory.peak < 1e6


@pytest.mark.parametrize('data', [JPEG, PNG], ids=['jpeg', 'png'])
def test_no_cut_and_no_changed_byte_crashes(data):
    for at in range(0, len(data), 7):
        for broken in (data[:at], flipped(data, at)):
            try:
                assert compressed_to_rgb(message(broken)).ndim == 3
            except BadFrameError:
                continue
            assert len(broken) == len(data), 'a file that was cut was read'
