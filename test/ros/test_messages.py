"""Conversions between messages and arrays."""

import sys
import types

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros import cv_bridge_probe, messages
from hybrid_seg_ros.ros.messages import BadFrameError, compressed_to_rgb, image_to_rgb
from hybrid_seg_ros.segmentation import TokenReport

HEADER = Header(frame_id='camera')
HEADER.stamp.sec = 12


@pytest.fixture(autouse=True)
def fresh_probe():
    cv_bridge_probe._probe.cache_clear()
    yield
    cv_bridge_probe._probe.cache_clear()


def rgb(height=5, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def image(pixels, encoding, padding=0):
    rows = np.pad(pixels.reshape(pixels.shape[0], -1), ((0, 0), (0, padding)), constant_values=99)
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1])
    message.data.frombytes(rows.tobytes())
    return message


def with_alpha(pixels):
    return np.dstack([pixels, np.full(pixels.shape[:2], 200, np.uint8)])


@pytest.mark.parametrize('padding', [0, 1, 6])
@pytest.mark.parametrize(
    ('encoding', 'encode'),
    [
        ('rgb8', lambda picture: picture),
        ('bgr8', lambda picture: picture[..., ::-1]),
        ('8UC3', lambda picture: picture[..., ::-1]),
        ('rgba8', with_alpha),
        ('bgra8', lambda picture: with_alpha(picture[..., ::-1])),
    ],
)
def test_color_encodings_and_row_padding(encoding, encode, padding):
    picture = rgb()
    result = image_to_rgb(image(encode(picture), encoding, padding))
    assert result.dtype == np.uint8 and result.flags.c_contiguous
    np.testing.assert_array_equal(result, picture)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(encoding):
    grey = rgb()[..., 0]
    np.testing.assert_array_equal(image_to_rgb(image(grey, encoding, padding=3)), np.dstack([grey] * 3))


def test_rgb8_without_padding_is_not_copied():
    message = image(rgb(), 'rgb8')
    assert np.shares_memory(image_to_rgb(message), np.frombuffer(message.data, np.uint8))


def test_data_longer_than_the_picture_is_no_harm():
    message = image(rgb(), 'rgb8')
    message.data.frombytes(b'12345')
    np.testing.assert_array_equal(image_to_rgb(message), rgb())


def changed(message, **fields):
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ('fields', 'problem'),
    [
        ({'encoding': 'rgb7'}, "unknown encoding 'rgb7'; legal are rgb8, bgr8"),
        ({'encoding': ''}, "unknown encoding ''"),
        ({'height': 0}, 'at least 1x1 pixel, got 7x0'),
        ({'width': 0}, 'at least 1x1 pixel, got 0x5'),
        ({'step': 20}, 'expected step >= 21'),
        ({'step': 22}, r'expected 110 bytes \(step 22 x height 5\), got 105'),
        ({'encoding': 'rgba8'}, 'expected step >= 28'),
        ({'data': b''}, 'got 0'),
    ],
)
def test_bad_images_are_refused(fields, problem):
    with pytest.raises(BadFrameError, match=problem):
        image_to_rgb(changed(image(rgb(), 'rgb8'), **fields))


def compressed(kind, picture, image_format='jpeg'):
    message = CompressedImage(format=image_format)
    message.data.frombytes(cv2.imencode(kind, picture[..., ::-1])[1].tobytes())
    return message


@pytest.mark.parametrize('image_format', ['png', 'rgb8; png compressed bgr8', ''])
def test_png_is_read_exactly_whatever_the_format_field_says(image_format):
    np.testing.assert_array_equal(compressed_to_rgb(compressed('.png', rgb(), image_format)), rgb())


def test_jpeg_is_read_as_rgb():
    picture = np.full((16, 16, 3), (200, 30, 60), np.uint8)
    np.testing.assert_allclose(compressed_to_rgb(compressed('.jpg', picture)), picture, atol=6)


def test_jpeg_with_zeros_after_its_end_is_read():
    message = compressed('.jpg', rgb(16, 16))
    message.data.frombytes(bytes(10))
    assert compressed_to_rgb(message).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ('data', 'problem'),
    [
        (b'', 'start with nothing'),
        (b'GIF89a and more', 'expected a JPEG or PNG picture, got 15 bytes that start with 47 49 46'),
        (compressed('.jpg', rgb(40, 40)).data.tobytes()[:-30], 'cut off'),
        (compressed('.png', rgb(40, 40)).data.tobytes()[:60], 'cannot be decoded'),
        (b'\xff\xd8\xff\xe0 not a JPEG \xff\xd9', 'cannot be decoded'),
    ],
    ids=['empty', 'gif', 'cut jpeg', 'cut png', 'rubbish'],
)
def test_broken_compressed_images_are_refused(data, problem):
    message = CompressedImage(format='jpeg')
    message.data.frombytes(data)
    with pytest.raises(BadFrameError, match=problem):
        compressed_to_rgb(message)


def bridge_module(convert):
    module = types.ModuleType('cv_bridge')
    module.CvBridge = type('CvBridge', (), {'imgmsg_to_cv2': lambda self, message, encoding: convert(message)})
    return module


def swap_channels(message):
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)[..., ::-1]


def test_a_working_cv_bridge_reads_the_encodings_that_are_not_ours(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', bridge_module(swap_channels))
    result = image_to_rgb(image(rgb(), 'yuv422'))
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, rgb()[..., ::-1])
    with pytest.raises(BadFrameError, match='step x height bytes'):
        image_to_rgb(changed(image(rgb(), 'yuv422'), height=6))


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
    with pytest.raises(BadFrameError, match=problem):
        image_to_rgb(image(rgb(), 'yuv422'))
    np.testing.assert_array_equal(image_to_rgb(image(rgb(), 'rgb8')), rgb())


def test_what_a_working_cv_bridge_raises_is_a_bad_frame(monkeypatch):
    def only_bgr(message):
        return swap_channels(message) if message.encoding == 'bgr8' else broken(message)

    monkeypatch.setitem(sys.modules, 'cv_bridge', bridge_module(only_bgr))
    with pytest.raises(BadFrameError, match="cannot convert encoding 'bayer_rggb8'"):
        image_to_rgb(image(rgb(), 'bayer_rggb8'))


@pytest.mark.parametrize(('picture', 'encoding', 'step'), [(rgb(), 'rgb8', 21), (rgb()[..., 1], 'mono8', 7)])
def test_arrays_become_images(picture, encoding, step):
    message = messages.array_to_image(picture, HEADER)
    assert (message.height, message.width, message.encoding, message.step) == (5, 7, encoding, step)
    assert message.header == HEADER and message.is_bigendian == (sys.byteorder == 'big')
    assert message.data.tobytes() == picture.tobytes()


@pytest.mark.parametrize('array', [rgb().astype(np.int16), rgb()[..., :2], rgb()[0, 0]])
def test_other_arrays_do_not(array):
    with pytest.raises(ValueError, match=r'expected \(H, W\) or \(H, W, 3\) uint8'):
        messages.array_to_image(array, HEADER)


def test_confidence_is_0_to_255():
    message = messages.confidence_to_image(np.array([[0.0, 0.5, 1.0]], np.float32), HEADER)
    assert message.encoding == 'mono8' and list(message.data) == [0, 128, 255]


def test_token_usage_names_its_stages():
    grid = np.ones((4, 6), np.uint8)
    message = messages.token_usage_message(TokenReport((4, 6), grid, 0 * grid, 15, ((6, 9), (8, 5))))
    assert list(message.data) == [24, 15, 9, 5]
    assert [(d.label, d.size, d.stride) for d in message.layout.dim] == [('total,merged,kept@6,kept@8', 4, 4)]


def test_camera_info_is_scaled_and_the_original_left_alone():
    info = CameraInfo(height=480, width=640, d=[0.1] * 5, k=[500.0, 0, 320, 0, 400, 240, 0, 0, 1], binning_x=2)
    info.p = [500.0, 0, 320, -50, 0, 400, 240, 0, 0, 0, 1, 0]
    info.roi = RegionOfInterest(x_offset=64, y_offset=48, width=320, height=240, do_rectify=True)
    scaled = messages.scale_camera_info(info, (480, 640), (120, 320), HEADER)
    assert scaled.header == HEADER and (scaled.height, scaled.width) == (120, 320)
    assert list(scaled.k) == [250, 0, 160, 0, 100, 60, 0, 0, 1]
    assert list(scaled.p) == [250, 0, 160, -25, 0, 100, 60, 0, 0, 0, 1, 0]
    roi = RegionOfInterest(x_offset=32, y_offset=12, width=160, height=60, do_rectify=True)
    assert scaled.roi == roi and list(scaled.d) == [0.1] * 5 and scaled.binning_x == 2
    assert info.k[0] == 500 and info.width == 640


def test_label_info_names_the_classes_where_vision_msgs_is_installed(monkeypatch):
    classes = LabelSpace(('sky', 'road'), ((1, 2, 3), (4, 5, 6)))
    monkeypatch.setattr(messages, 'LabelInfo', None)
    assert messages.label_info_message(classes, HEADER) is None
    monkeypatch.setattr(messages, 'LabelInfo', types.SimpleNamespace)
    monkeypatch.setattr(messages, 'VisionClass', types.SimpleNamespace)
    info = messages.label_info_message(classes, HEADER)
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == [(0, 'sky'), (1, 'road')]
