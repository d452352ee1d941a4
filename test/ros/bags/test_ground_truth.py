"""Label images out of messages: whole and padded rows, and a clear word for what is no label image."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from bag_files import CAMERA, COUNT, PERIOD_NS, STAMP_NS, picture, write_mcap
from bag_files import LABELS as LABEL_TOPIC
from picture_files import indexed_png

from hybrid_seg_ros.ros.bags.bag_reader import BagError, BagReader
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.bags.ground_truth import GroundTruth, compressed_to_labels, image_to_labels
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


@pytest.mark.parametrize('bits', [4, 8])
def test_png_with_a_palette_gives_the_indices(bits):
    data = np.frombuffer(indexed_png(LABELS, [(200, index, 0) for index in range(6)], bits), np.uint8)
    assert np.array_equal(compressed_to_labels(SimpleNamespace(data=data, format='png')), LABELS)


@pytest.mark.parametrize('values', [None, np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint16)])
def test_what_is_no_png_of_labels(values):
    data = np.zeros(0, np.uint8) if values is None else cv2.imencode('.png', values)[1].reshape(-1)
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


@pytest.mark.parametrize(('classes', 'void'), [(None, None), (11, None), (10, 10), (None, 10), (11, 4)])
def test_void_is_unlabelled_and_ids_are_checked(tmp_path, classes, void):
    with BagReader(write_mcap(tmp_path / 'drive.mcap')) as bag:
        truth = Drive(bag, classes=classes, void=void).truth
        values = picture(0, LABEL_TOPIC)
        assert (truth.name, truth.stamps_ns[0], len(truth.stamps_ns)) == (LABEL_TOPIC, STAMP_NS, COUNT)
        assert np.array_equal(truth.labels_at(STAMP_NS), np.where(values == void, 255, values) if void else values)


@pytest.mark.parametrize('kept_bytes', [0, 2000, 10**6])
@pytest.mark.parametrize('chunked', [True, False])
def test_memory_is_bounded_and_any_order_will_do(tmp_path, chunked, kept_bytes):
    """Also while the frames are being read from the same bag."""
    with BagReader(write_mcap(tmp_path / 'drive.mcap', chunked=chunked)) as bag:
        truth = GroundTruth(bag, bag.select_label_topic(), kept_bytes=kept_bytes)
        asked = [*range(COUNT), 7, 7, 5, 30, 8, *reversed(range(COUNT))]
        for index in asked:
            assert np.array_equal(truth.labels_at(STAMP_NS + index * PERIOD_NS), picture(index, LABEL_TOPIC))
        frames = list(zip(bag.messages([bag.select_camera_topic()]), truth.stamps_ns))
        assert len(frames) == COUNT
        for index, message in enumerate(bag.messages([bag.select_camera_topic()])):
            assert bytes(bag.deserialize(message).data) == picture(index, CAMERA).tobytes()
            assert np.array_equal(truth.labels_at(message.stamp_ns), picture(index, LABEL_TOPIC))
        assert truth.labels_at(1) is None


def test_an_id_that_is_no_class(tmp_path):
    with BagReader(write_mcap(tmp_path / 'drive.mcap')) as bag:
        truth = GroundTruth(bag, bag.select_label_topic(), classes=10)
        complaint = r'drive.mcap: /camera/labels at 5.000 s: label 10 \(\d+ pixels\); legal are 0 to 9, and 255 for'
        with pytest.raises(ValueError, match=complaint):
            truth.labels_at(STAMP_NS)
    with BagReader(tmp_path / 'drive.mcap') as bag, pytest.raises(ValueError, match='void: expected a label id'):
        GroundTruth(bag, bag.select_label_topic(), void=256)


def test_a_drive_takes_ground_truth_from_elsewhere(tmp_path):
    with BagReader(write_mcap(tmp_path / 'drive.mcap', garbage_at=3), tolerant=True) as bag:
        elsewhere = SimpleNamespace(name='elsewhere', stamps_ns=(), labels_at=lambda stamp_ns: None)
        drive = Drive(bag, truth=elsewhere)
        assert drive.truth is elsewhere
        assert drive.camera.name == CAMERA and drive.camera.count == len(drive.stamps_ns) == len(drive.frames()) == 39


def test_a_drive_of_which_no_frame_can_be_read(tmp_path):
    path = write_mcap(tmp_path / 'drive.mcap', garbage_at='all')
    with BagReader(path, tolerant=True) as bag, pytest.raises(BagError, match='/camera/image holds no messages'):
        Drive(bag)
