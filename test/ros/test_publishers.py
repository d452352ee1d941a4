"""What is published, as messages."""

import sys
import types

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros import publishers
from hybrid_seg_ros.ros.image_decoding import compressed_to_rgb
from hybrid_seg_ros.segmentation import TokenReport

HEADER = Header(frame_id='camera')
HEADER.stamp.sec = 12


def rgb(height=5, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(('picture', 'encoding', 'step'), [(rgb(), 'rgb8', 21), (rgb()[..., 1], 'mono8', 7)])
def test_arrays_become_images(picture, encoding, step):
    message = publishers.array_to_image(picture, HEADER)
    assert (message.height, message.width, message.encoding, message.step) == (5, 7, encoding, step)
    assert message.header == HEADER and message.is_bigendian == (sys.byteorder == 'big')
    assert message.data.tobytes() == picture.tobytes()


@pytest.mark.parametrize('array', [rgb().astype(np.int16), rgb()[..., :2], rgb()[0, 0]])
def test_other_arrays_do_not(array):
    with pytest.raises(ValueError, match=r'expected \(H, W\) or \(H, W, 3\) uint8'):
        publishers.array_to_image(array, HEADER)


def test_a_mask_as_png_is_the_mask_and_called_what_image_transport_calls_it():
    labels = np.repeat(rgb(60, 80)[..., 0] % 11, 4, axis=1)
    labels[3:5] = 255
    message = publishers.array_to_png(labels, HEADER)
    assert message.header == HEADER and message.format == 'mono8; png compressed '
    assert len(message.data) < labels.size / 4
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED), labels)
    np.testing.assert_array_equal(compressed_to_rgb(message), np.dstack([labels] * 3))


@pytest.mark.parametrize('array', [rgb(), rgb()[..., 0].astype(np.int16)])
def test_what_is_no_mask_does_not_become_a_png(array):
    with pytest.raises(ValueError, match=r'expected labels \(H, W\) uint8'):
        publishers.array_to_png(array, HEADER)


def test_confidence_is_0_to_255():
    message = publishers.confidence_to_image(np.array([[0.0, 0.5, 1.0]], np.float32), HEADER)
    assert message.encoding == 'mono8' and list(message.data) == [0, 128, 255]


def test_token_usage_names_its_stages():
    grid = np.ones((4, 6), np.uint8)
    message = publishers.token_usage_message(TokenReport((4, 6), grid, 0 * grid, 15, ((6, 9), (8, 5))))
    assert list(message.data) == [24, 15, 9, 5]
    assert [(d.label, d.size, d.stride) for d in message.layout.dim] == [('total,merged,kept@6,kept@8', 4, 4)]


def test_camera_info_is_scaled_and_the_original_left_alone():
    info = CameraInfo(height=480, width=640, d=[0.1] * 5, k=[500.0, 0, 320, 0, 400, 240, 0, 0, 1], binning_x=2)
    info.p = [500.0, 0, 320, -50, 0, 400, 240, 0, 0, 0, 1, 0]
    info.roi = RegionOfInterest(x_offset=64, y_offset=48, width=320, height=240, do_rectify=True)
    scaled = publishers.scale_camera_info(info, (480, 640), (120, 320), HEADER)
    assert scaled.header == HEADER and (scaled.height, scaled.width) == (120, 320)
    assert list(scaled.k) == [250, 0, 160, 0, 100, 60, 0, 0, 1]
    assert list(scaled.p) == [250, 0, 160, -25, 0, 100, 60, 0, 0, 0, 1, 0]
    roi = RegionOfInterest(x_offset=32, y_offset=12, width=160, height=60, do_rectify=True)
    assert scaled.roi == roi and list(scaled.d) == [0.1] * 5 and scaled.binning_x == 2
    assert info.k[0] == 500 and info.width == 640


def test_label_info_names_the_classes_where_vision_msgs_is_installed(monkeypatch):
    classes = LabelSpace(('sky', 'road'), ((1, 2, 3), (4, 5, 6)))
    monkeypatch.setattr(publishers, 'LabelInfo', None)
    assert publishers.label_info_message(classes, HEADER) is None
    monkeypatch.setattr(publishers, 'LabelInfo', types.SimpleNamespace)
    monkeypatch.setattr(publishers, 'VisionClass', types.SimpleNamespace)
    info = publishers.label_info_message(classes, HEADER)
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == [(0, 'sky'), (1, 'road')]
