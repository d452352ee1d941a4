"""Image messages to RGB arrays."""

import itertools
import sys
import types

import numpy as np
import pytest
from image_encodings import BAYER, ENCODINGS, EXACT, GREY, encode, gradient
from sensor_msgs.msg import Image
from traced_memory import traced_memory

from hybrid_seg_ros.ros import image_decoding
from hybrid_seg_ros.ros.image_decoding import IMAGE_ENCODINGS, BadFrameError, image_to_rgb

EVEN_SIZE = ('nv12', 'nv21')


@pytest.fixture(autouse=True)
def fresh_probe():
    image_decoding._working_bridge.cache_clear()
    yield
    image_decoding._working_bridge.cache_clear()


def changed(message, **fields):
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def shortened(message, count):
    return changed(message, data=message.data[:-count])


def difference(rgb, expected):
    return np.abs(rgb.astype(int) - expected)


def test_every_encoding_is_tested():
    assert sorted(ENCODINGS) == sorted(IMAGE_ENCODINGS)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_gives_nearly_the_picture_with_and_without_padding(encoding):
    picture = gradient()
    result = image_to_rgb(encode(picture, encoding))
    expected = np.dstack([picture[..., 1]] * 3) if encoding in GREY else picture
    assert result.dtype == np.uint8 and result.flags.c_contiguous
    assert difference(result, expected).max() <= (0 if encoding in EXACT + GREY else 8)
    assert difference(result, expected).mean() <= 2
    for padding in (1, 6):
        np.testing.assert_array_equal(result, image_to_rgb(encode(picture, encoding, padding)))


@pytest.mark.parametrize('pattern', BAYER)
def test_a_mosaic_read_as_another_pattern_has_wrong_colours(pattern):
    for other in set(BAYER) - {pattern}:
        message = encode(gradient(), f'bayer_{pattern}8')
        assert difference(image_to_rgb(changed(message, encoding=f'bayer_{other}8')), gradient()).max() > 60


@pytest.mark.parametrize('encoding', [name for name in ENCODINGS if '16' in name or '32' in name])
def test_both_byte_orders_give_the_same_picture(encoding):
    for padding in (0, 3):
        big, little = (encode(gradient(), encoding, padding, big_endian) for big_endian in (True, False))
        assert big.data != little.data
        np.testing.assert_array_equal(image_to_rgb(big), image_to_rgb(little))


@pytest.mark.parametrize('encoding', ['rgb8', 'uyvy', 'nv12', 'bayer_rggb8'])
def test_byte_order_says_nothing_where_a_number_is_one_byte(encoding):
    message = encode(gradient(), encoding)
    expected = image_to_rgb(message)
    np.testing.assert_array_equal(image_to_rgb(changed(message, is_bigendian=1)), expected)


@pytest.mark.parametrize(('value', 'expected'), [(0, 0), (128, 0), (129, 1), (32767, 127), (65535, 255)])
def test_16_bit_are_scaled_and_rounded_as_cv_bridge_does_it(value, expected):
    message = Image(height=1, width=2, encoding='mono16', step=4)
    message.data.frombytes(2 * value.to_bytes(2, 'little'))
    assert image_to_rgb(message).tolist() == [[[expected] * 3] * 2]


@pytest.mark.parametrize('encoding', ['RGB8', 'NV12', 'YUYV', '8uc3', 'Mono16'])
def test_the_letter_case_of_a_name_does_not_matter(encoding):
    known = next(name for name in ENCODINGS if name.lower() == encoding.lower())
    message = encode(gradient(), known)
    expected = image_to_rgb(message)
    np.testing.assert_array_equal(image_to_rgb(changed(message, encoding=encoding)), expected)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_the_smallest_size_of_each_encoding(encoding):
    size_hw = (2, 2) if encoding in EVEN_SIZE else (3, 3) if 'bayer' in encoding else (1, 2)
    picture = np.full((*size_hw, 3), 140, np.uint8)
    assert difference(image_to_rgb(encode(picture, encoding)), picture).max() <= 1


def test_rgb8_without_padding_is_not_copied():
    message = encode(gradient(), 'rgb8')
    assert np.shares_memory(image_to_rgb(message), np.frombuffer(message.data, np.uint8))


def test_data_longer_than_the_picture_is_no_harm():
    message = encode(gradient(), 'rgb8')
    message.data.frombytes(b'12345')
    np.testing.assert_array_equal(image_to_rgb(message), gradient())


@pytest.mark.parametrize(('encoding', 'step'), [('nv12', 48), ('nv21', 48), ('nv12', 64), ('nv24', 64), ('nv24', 96)])
def test_planes_without_padding_are_read_whatever_their_step(encoding, step):
    message = encode(gradient(), encoding)
    assert message.step == 32
    expected = image_to_rgb(message)
    np.testing.assert_array_equal(image_to_rgb(changed(message, step=step)), expected)


def without_chroma(encoding):
    message = encode(gradient(), encoding)
    return changed(message, data=message.data[: 24 * 32])


@pytest.mark.parametrize(
    ('message', 'problem'),
    [
        (changed(encode(gradient(), 'rgb8'), encoding='rgb7'), "unknown encoding 'rgb7'; legal are rgb8, bgr8, .*nv24"),
        (changed(encode(gradient(), 'rgb8'), encoding=''), "unknown encoding ''"),
        (changed(encode(gradient(), 'rgb8'), height=0), '2 to 67108864 pixels, got 32x0'),
        (changed(encode(gradient(), 'nv12'), width=0), '2 to 67108864 pixels, got 0x24'),
        (changed(encode(gradient(), 'bgr8'), height=1, width=1), 'pixels, got 1x1'),
        (changed(encode(gradient(), 'yuyv'), height=8194, width=8194), 'pixels, got 8194x8194'),
        (changed(encode(gradient(), 'rgb8'), step=95), 'expected step >= 96 .*got step 95'),
        (changed(encode(gradient(), 'rgb8'), step=0), 'expected step >= 96 .*got step 0'),
        (changed(encode(gradient(), 'rgb8'), step=97), r'expected 2328 bytes \(step 97 x height 24\), got 2304'),
        (changed(encode(gradient(), 'rgb8'), encoding='rgba8'), 'expected step >= 128'),
        (changed(encode(gradient(), 'mono8'), encoding='mono16'), r'expected step >= 64 \(32 pixels of mono16\)'),
        (changed(encode(gradient(), 'mono8'), encoding='32FC1'), 'expected step >= 128'),
        (changed(encode(gradient(), 'rgb8'), data=b''), 'expected 2304 bytes .*got 0'),
        (shortened(encode(gradient(), 'bayer_rggb16'), 1), 'expected 1536 bytes .*got 1535'),
        (shortened(encode(gradient(), 'uyvy'), 1), 'expected 1536 bytes .*got 1535'),
        (encode(gradient(2, 8), 'bayer_bggr8'), 'expected at least 3x3 pixels of bayer_bggr8, got 8x2'),
        (encode(gradient(8, 2), 'bayer_grbg16'), 'expected at least 3x3 pixels of bayer_grbg16, got 2x8'),
        (changed(encode(gradient(), 'rgb8'), encoding='bayer_rggb8'), 'one channel .bayer_rggb8., 32 bytes .* three'),
        (changed(encode(gradient(), 'rgb16'), encoding='bayer_rggb16'), 'one channel .*got three: step 192'),
        (changed(encode(gradient(), 'rgb8'), encoding='bayer_grbg8', step=32), 'got three: step 32, 2304 bytes'),
        (changed(encode(gradient(), 'bgr8'), encoding='mono8'), 'one channel .mono8., 32 bytes a row, got three'),
        (changed(encode(gradient(), 'uyvy'), width=31), 'expected an even width .*got 31'),
        (changed(encode(gradient(), 'yuyv'), width=31), 'expected an even width .*got 31'),
        (changed(encode(gradient(), 'nv12'), width=31), 'expected even width and height .*got 31x24'),
        (changed(encode(gradient(), 'nv21'), height=23), 'expected even width and height .*got 32x23'),
        (changed(encode(gradient(), 'nv12'), step=31), 'expected step >= 32 .*got step 31'),
        (shortened(encode(gradient(), 'nv12'), 1), r'1152 bytes \(nv12: step 32 x height 24 x 1.5\), got 1151'),
        (shortened(encode(gradient(), 'nv24', padding=2), 1), r'2448 bytes \(nv24: step 34 x height 24 x 3\)'),
        (without_chroma('nv12'), 'expected 1152 bytes .*got 768'),
        (without_chroma('nv24'), 'expected 2304 bytes .*got 768'),
        (changed(encode(gradient(), 'nv12'), height=36), 'expected 1728 bytes .*got 1152'),
    ],
)  # fmt: skip
def test_bad_images_are_refused(message, problem):
    with pytest.raises(BadFrameError, match=problem):
        image_to_rgb(message)


@pytest.mark.parametrize(
    ('encoding', 'big_endian', 'value', 'problem'),
    [
        ('32FC1', False, np.nan, 'got 0.25 to 0.25 and 1 that are NaN or infinite'),
        ('32FC1', True, np.inf, 'got 0.25 to 0.25 and 1 that are NaN or infinite'),
        ('32FC3', False, -np.inf, 'got 0.25 to 0.25 and 1 that are NaN or infinite'),
        ('32FC1', False, 4.5, 'got 0.25 to 4.5 and 0 that are NaN or infinite; is this a depth image'),
        ('32FC3', True, 4.5, 'got 0.25 to 4.5 and 0 that are NaN or infinite; is this a depth image'),
        ('32FC1', False, -0.01, 'got -0.01 to 0.25 and 0'),
    ],
)
def test_floats_that_are_no_colours_are_refused(encoding, big_endian, value, problem):
    values = np.full((3, 4, int(encoding[-1])), 0.25, '>f4' if big_endian else '<f4')
    values[1, 2, 0] = value
    message = Image(height=3, width=4, encoding=encoding, step=values.strides[0], is_bigendian=int(big_endian))
    message.data.frombytes(values.tobytes())
    with pytest.raises(BadFrameError, match=f'expected {encoding} with finite values from 0 to 1, {problem}'):
        image_to_rgb(message)


def test_an_image_of_nothing_but_nan_is_refused():
    message = Image(height=1, width=2, encoding='32FC1', step=8)
    message.data.frombytes(np.full(2, np.nan, np.float32).tobytes())
    with pytest.raises(BadFrameError, match='got none and 2 that are NaN'):
        image_to_rgb(message)


@pytest.mark.parametrize('encoding', [*ENCODINGS, 'rgb7'])
def test_no_declared_size_crashes_or_allocates(encoding):
    sizes = (0, 1, 2, 3, 16, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
    message = Image(encoding=encoding)
    message.data.frombytes(bytes(100))
    refused = 0
    with traced_memory() as memory:
        for width, height, step in itertools.product(sizes, repeat=3):
            try:
                result = image_to_rgb(changed(message, width=width, height=height, step=step))
                assert result.shape == (height, width, 3)
            except BadFrameError:
                refused += 1
    assert refused > 900 and memory.peak < 1e6


def bridge_module(convert):
    module = types.ModuleType('cv_bridge')
    module.CvBridge = type('CvBridge', (), {'imgmsg_to_cv2': lambda self, message, encoding: convert(message)})
    return module


def swap_channels(message):
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)[..., ::-1]


def foreign(**fields):
    return changed(encode(gradient(), 'rgb8'), encoding='yuv444', **fields)


def test_a_working_cv_bridge_reads_the_encodings_that_are_not_ours(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', bridge_module(swap_channels))
    result = image_to_rgb(foreign())
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, gradient()[..., ::-1])
    for fields, problem in (({'height': 25}, 'step x height'), ({'height': 0}, 'pixels'), ({'width': 0}, 'pixels')):
        with pytest.raises(BadFrameError, match=problem):
            image_to_rgb(foreign(**fields))


def broken(message):
    raise AttributeError('_ARRAY_API not found')


@pytest.mark.parametrize(
    ('module', 'problem'),
    [
        (None, 'cv_bridge'),
        (types.ModuleType('cv_bridge'), 'CvBridge'),
        (bridge_module(broken), '_ARRAY_API not found'),
        (bridge_module(lambda message: swap_channels(message)[..., ::-1]), 'converts wrongly'),
    ],
    ids=['not installed', 'without CvBridge', 'built for another numpy', 'wrong result'],
)
def test_a_cv_bridge_that_does_not_work_is_not_used(monkeypatch, module, problem):
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    with pytest.raises(BadFrameError, match=f"unknown encoding 'yuv444'; legal are .*{problem}"):
        image_to_rgb(foreign())
    np.testing.assert_array_equal(image_to_rgb(encode(gradient(), 'rgb8')), gradient())


def test_what_a_working_cv_bridge_raises_is_a_bad_frame(monkeypatch):
    def only_bgr(message):
        return swap_channels(message) if message.encoding == 'bgr8' else broken(message)

    monkeypatch.setitem(sys.modules, 'cv_bridge', bridge_module(only_bgr))
    with pytest.raises(BadFrameError, match="unknown encoding 'yuv444'; legal are .*cv_bridge: _ARRAY_API"):
        image_to_rgb(foreign())
