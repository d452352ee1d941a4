"""Label images out of messages: whole and padded rows, and a clear word for what is no label image."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from bag_files import (
    CAMERA,
    COMPRESSED,
    COUNT,
    LOG_NS,
    PERIOD_NS,
    RAW,
    STAMP_NS,
    Sent,
    file_cdr,
    image_cdr,
    picture,
    write_mcap,
    write_messages,
)
from bag_files import LABELS as LABEL_TOPIC
from picture_files import indexed_png

from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.ground_truth import (
    GroundTruth,
    UnreadableLabelsError,
    compressed_to_labels,
    image_to_labels,
)
from hybrid_seg_ros.ros.model_path import resolve_model_path

LABELS = np.arange(6, dtype=np.uint8).reshape(2, 3)
PNG = cv2.imencode('.png', LABELS)[1].tobytes()
INDEXED = indexed_png(LABELS, [(200, index, 0) for index in range(6)])


def image(data=LABELS, step=3, encoding='mono8', height=2, width=3):
    return SimpleNamespace(height=height, width=width, step=step, encoding=encoding, data=np.asarray(data).reshape(-1))


def file(suffix, values):
    return cv2.imencode(suffix, values)[1].tobytes()


def flipped(png):
    """Return the PNG with the last byte of its pixels inverted."""
    at = len(png) - 12 - 4 - 1
    return png[:at] + bytes([png[at] ^ 0xFF]) + png[at + 1 :]


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
        (image([], height=0), 'expected 3x0 labels, got 0 bytes'),
        (image([], step=0, width=0), 'expected 0x2 labels, got 0 bytes'),
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


@pytest.mark.parametrize(('data', 'complaint'), [
    (b'', 'expected a PNG of labels, got 0 bytes that start with nothing'),
    (file('.jpg', LABELS), 'expected a PNG of labels, got .* bytes that start with ff d8'),
    (PNG[:-12], 'cut off'),
    (PNG[: len(PNG) // 2], 'cut off'),
    (INDEXED[:-12], 'cut off'),
    (flipped(PNG), 'chunk IDAT fails its checksum'),
    (flipped(INDEXED), 'chunk IDAT fails its checksum'),
    (PNG[:8] + PNG[33:], 'the PNG cannot be decoded'),
    (file('.png', np.zeros((2, 2, 3), np.uint8)), r'expected a PNG of labels \(H, W\) uint8, got \(2, 2, 3\) uint8'),
    (file('.png', np.zeros((2, 2), np.uint16)), r'expected a PNG of labels \(H, W\) uint8, got \(2, 2\) uint16'),
])  # fmt: skip
def test_what_is_no_png_of_labels(data, complaint):
    with pytest.raises(ValueError, match=f"{complaint}.*format 'png'"):
        compressed_to_labels(SimpleNamespace(data=np.frombuffer(data, np.uint8), format='png'))


@pytest.mark.parametrize(('msgtype', 'good', 'broken'), [
    (COMPRESSED, file_cdr(PNG, STAMP_NS), file_cdr(PNG[:-12], STAMP_NS + PERIOD_NS)),
    (RAW, image_cdr(LABELS, STAMP_NS), image_cdr(LABELS, STAMP_NS + PERIOD_NS, 'bgr8')),
    (RAW, image_cdr(LABELS, STAMP_NS), image_cdr(LABELS, STAMP_NS + PERIOD_NS, missing=1)),
], ids=['png', 'encoding', 'size'])  # fmt: skip
def test_a_picture_that_cannot_be_read_is_told_from_ids_that_are_illegal(tmp_path, msgtype, good, broken):
    messages = [Sent(LABEL_TOPIC, msgtype, LOG_NS, cdr) for cdr in (good, broken)]
    with BagReader(write_messages(tmp_path / 'bag', messages)) as bag:
        truth = GroundTruth(bag, bag.select_label_topic(), classes=6)
        assert np.array_equal(truth.labels_at(STAMP_NS), LABELS)
        with pytest.raises(UnreadableLabelsError, match=r'bag: /camera/labels at 5.100 s: '):
            truth.labels_at(STAMP_NS + PERIOD_NS)
        assert bag.damage is None
        with pytest.raises(ValueError, match='label 5') as raised:
            GroundTruth(bag, bag.select_label_topic(), classes=5).labels_at(STAMP_NS)
        assert not isinstance(raised.value, UnreadableLabelsError)


def test_the_shipped_drive_has_labels_for_every_frame():
    with BagReader(resolve_model_path('package://hybrid_seg_ros/bags/camvid_val')) as bag:
        truth = GroundTruth(bag, bag.select_label_topic())
        stamps = [message.stamp_ns for message in bag.messages([bag.select_camera_topic()])]
        assert all(truth.labels_at(stamp_ns) is not None for stamp_ns in stamps)
        first = truth.labels_at(stamps[0])
        assert first.shape == (360, 480)
        assert set(np.unique(first)) <= {*range(11), 255}
        assert truth.labels_at(1) is None


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
