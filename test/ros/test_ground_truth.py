"""Label images out of messages: whole and padded rows, and a clear word for what is no label image."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from hybrid_seg_ros.ros.bag_reader import BagReader
from hybrid_seg_ros.ros.ground_truth import GroundTruth, compressed_to_labels, image_to_labels
from hybrid_seg_ros.ros.model_path import resolve_model_path

LABELS = np.arange(6, dtype=np.uint8).reshape(2, 3)


def image(data=LABELS, step=3, encoding='mono8'):
    return SimpleNamespace(height=2, width=3, step=step, encoding=encoding, data=np.asarray(data).reshape(-1))


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_whole_and_padded_rows(encoding):
    padded = np.pad(LABELS, ((0, 0), (0, 5)), constant_values=99)
    assert np.array_equal(image_to_labels(image(encoding=encoding)), LABELS)
    assert np.array_equal(image_to_labels(image(padded, step=8, encoding=encoding)), LABELS)


@pytest.mark.parametrize(
    ('message', 'complaint'),
    [
        (image(encoding='rgb8'), "expected labels encoded as mono8 or 8UC1, got 'rgb8'"),
        (image(LABELS[:1]), 'expected 3x2 labels, got 3 bytes in rows of 3'),
        (image(step=2), 'expected 3x2 labels'),
    ],
)
def test_what_is_no_label_image(message, complaint):
    with pytest.raises(ValueError, match=complaint):
        image_to_labels(message)


def test_png_is_read_to_the_last_bit():
    data = cv2.imencode('.png', LABELS)[1].reshape(-1)
    assert np.array_equal(compressed_to_labels(SimpleNamespace(data=data, format='png')), LABELS)


@pytest.mark.parametrize('picture', [None, np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint16)])
def test_what_is_no_png_of_labels(picture):
    data = np.zeros(0, np.uint8) if picture is None else cv2.imencode('.png', picture)[1].reshape(-1)
    with pytest.raises(ValueError, match=r'expected a PNG of labels \(H, W\) uint8, got'):
        compressed_to_labels(SimpleNamespace(data=data, format='png'))


def test_the_shipped_drive_has_labels_for_every_frame():
    with BagReader(resolve_model_path('package://hybrid_seg_ros/bags/camvid_val')) as bag:
        truth = GroundTruth(bag, bag.select_label_topic())
        stamps = [message.stamp_ns for message in bag.messages([bag.select_camera_topic()])]
        assert all(truth.labels_at(stamp_ns) is not None for stamp_ns in stamps)
        first = truth.labels_at(stamps[0])
        assert first.shape == (360, 480)
        assert set(np.unique(first)) <= {*range(11), 255}
        assert truth.labels_at(1) is None
