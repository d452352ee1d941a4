"""Ground truth out of messages and from a folder of files named by stamp; a clear word for what is no label image."""

import re
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
from picture_files import indexed_png, write_picture

from hybrid_seg_ros.model_path import resolve_model_path
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.ground_truth import (
    FolderTruth,
    TopicTruth,
    UnreadableLabelsError,
    compressed_to_values,
    have_one_aspect,
    parse_stamp_ns,
)
from hybrid_seg_ros.ros.image_decoding import grey_values

LABELS = np.arange(6, dtype=np.uint8).reshape(2, 3)
PNG = cv2.imencode('.png', LABELS)[1].tobytes()
INDEXED = indexed_png(LABELS, [(200, index, 0) for index in range(6)])
IDS = np.array([[0, 1, 2], [10, 11, 255]], np.uint8)
FRAME_NS = 1_700_000_000_066_666_667


def image(data=LABELS, step=3, encoding='mono8', height=2, width=3):
    return SimpleNamespace(height=height, width=width, step=step, encoding=encoding, is_bigendian=0,
                           data=np.asarray(data).reshape(-1))


def file(suffix, values):
    return cv2.imencode(suffix, values)[1].tobytes()


def flipped(png):
    """Return the PNG with the last byte of its pixels inverted."""
    at = len(png) - 12 - 4 - 1
    return png[:at] + bytes([png[at] ^ 0xFF]) + png[at + 1 :]


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_whole_and_padded_rows(encoding):
    padded = np.pad(LABELS, ((0, 0), (0, 5)), constant_values=99)
    assert np.array_equal(grey_values(image(encoding=encoding)), LABELS)
    assert np.array_equal(grey_values(image(padded, step=8, encoding=encoding)), LABELS)


@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
def test_16_bits(encoding):
    values = LABELS.astype('<u2') + 999
    assert np.array_equal(grey_values(image(values.view(np.uint8), step=6, encoding=encoding)), values)


@pytest.mark.parametrize(
    ('message', 'complaint'),
    [
        (image(encoding='rgb8'), "expected one channel of 8 or 16 bits .*, got 'rgb8'"),
        (image(encoding='32FC1'), "expected one channel of 8 or 16 bits .*, got '32FC1'"),
        (image(LABELS[:1]), r'expected 6 bytes \(step 3 x height 2\), got 3'),
        (image(step=2), 'expected step >= 3'),
        (image([], height=0), 'expected an image of 2 to 67108864 pixels, got 3x0'),
        (image([], step=0, width=0), 'expected an image of 2 to 67108864 pixels, got 0x2'),
        (image(np.zeros((2, 9), np.uint8), step=9), 'expected one channel .mono8., 3 bytes a row, got three: step 9'),
    ],
)
def test_what_is_no_label_image(message, complaint):
    with pytest.raises(ValueError, match=complaint):
        grey_values(message)


def test_png_is_read_to_the_last_bit():
    data = cv2.imencode('.png', LABELS)[1].reshape(-1)
    assert np.array_equal(compressed_to_values(SimpleNamespace(data=data, format='png')), LABELS)


@pytest.mark.parametrize('bits', [4, 8])
@pytest.mark.parametrize('palette', [None, [(200, index, 0) for index in range(6)]])
def test_png_gives_the_values_as_stored(bits, palette):
    data = np.frombuffer(indexed_png(LABELS, palette, bits), np.uint8)
    assert np.array_equal(compressed_to_values(SimpleNamespace(data=data, format='png')), LABELS)


@pytest.mark.parametrize(('data', 'complaint'), [
    (b'', 'the file is empty; 0 bytes'),
    (b'no picture', 'not a readable image'),
    (file('.jpg', LABELS), 'expected a lossless label file, got JPEG'),
    (PNG[:-12], 'cut off'),
    (PNG[: len(PNG) // 2], 'cut off'),
    (INDEXED[:-12], 'cut off'),
    (flipped(PNG), 'damaged .*IDAT'),
    (flipped(INDEXED), 'damaged .*IDAT'),
    (PNG[:8] + PNG[33:], 'not a readable image'),
    (file('.png', np.arange(12, dtype=np.uint8).reshape(2, 2, 3)), 'expected one class id per pixel, got colours'),
])  # fmt: skip
def test_what_is_no_png_of_labels(data, complaint):
    with pytest.raises(ValueError, match=f"{complaint}.*format 'png'"):
        compressed_to_values(SimpleNamespace(data=np.frombuffer(data, np.uint8), format='png'))


@pytest.mark.parametrize(('msgtype', 'good', 'broken'), [
    (COMPRESSED, file_cdr(PNG, STAMP_NS), file_cdr(PNG[:-12], STAMP_NS + PERIOD_NS)),
    (RAW, image_cdr(LABELS, STAMP_NS), image_cdr(LABELS, STAMP_NS + PERIOD_NS, 'bgr8')),
    (RAW, image_cdr(LABELS, STAMP_NS), image_cdr(LABELS, STAMP_NS + PERIOD_NS, missing=1)),
], ids=['png', 'encoding', 'size'])  # fmt: skip
def test_a_picture_that_cannot_be_read_is_told_from_ids_that_are_illegal(tmp_path, msgtype, good, broken):
    messages = [Sent(LABEL_TOPIC, msgtype, LOG_NS, cdr) for cdr in (good, broken)]
    with BagReader(write_messages(tmp_path / 'bag', messages)) as bag:
        truth = TopicTruth(bag, bag.select_label_topic(), classes=6)
        assert np.array_equal(truth.labels_at(STAMP_NS), LABELS)
        with pytest.raises(UnreadableLabelsError, match=r'bag: /camera/labels at 5.100 s: '):
            truth.labels_at(STAMP_NS + PERIOD_NS)
        assert bag.damage is None
        with pytest.raises(ValueError, match='label 5') as raised:
            TopicTruth(bag, bag.select_label_topic(), classes=5).labels_at(STAMP_NS)
        assert not isinstance(raised.value, UnreadableLabelsError)


def test_the_shipped_drive_has_labels_for_every_frame():
    with BagReader(resolve_model_path('package://hybrid_seg_ros/bags/camvid_val')) as bag:
        truth = TopicTruth(bag, bag.select_label_topic())
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
        truth = TopicTruth(bag, bag.select_label_topic(), kept_bytes=kept_bytes)
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
        truth = TopicTruth(bag, bag.select_label_topic(), classes=10)
        complaint = r'drive.mcap: /camera/labels at 5.000 s: label 10 \(\d+ pixels\); legal are 0 to 9, and 255 for'
        with pytest.raises(ValueError, match=complaint):
            truth.labels_at(STAMP_NS)
    with BagReader(tmp_path / 'drive.mcap') as bag, pytest.raises(ValueError, match='void: expected a label id'):
        TopicTruth(bag, bag.select_label_topic(), void=65536)


@pytest.mark.parametrize(('labels_hw', 'same'), [
    ((720, 960), True), ((360, 480), True), ((361, 480), True), ((90, 120), True), ((1440, 1920), True),
    ((960, 720), False), ((512, 512), False), ((360, 500), False),
])  # fmt: skip
def test_aspect(labels_hw, same):
    assert have_one_aspect((720, 960), labels_hw) == same


@pytest.mark.parametrize(('name', 'stamp_ns'), [
    ('1700000000066666667', FRAME_NS),
    ('1700000000.066666667', FRAME_NS),
    ('1700000000_066666667', FRAME_NS),
    ('1700000000.0667', 1_700_000_000_066_700_000),
    ('1000.5', 1_000_500_000_000),
    ('0', 0),
    ('frame_0001', None),
    ('1700000000.', None),
    ('1700000000.0666666671', None),
    ('-1', None),
    ('1e9', None),
    ('', None),
    ('٣', None),
])  # fmt: skip
def test_names(name, stamp_ns):
    assert parse_stamp_ns(name) == stamp_ns


@pytest.mark.parametrize('name', ['1700000000066666667.png', '1700000000.066666667.PNG', '1700000000_0667.png'])
def test_labels_of_a_frame(tmp_path, name):
    write_picture(tmp_path / 'file.png', IDS).rename(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('not a label image')
    (tmp_path / f'._{name}').write_bytes(b'what macOS leaves beside a file')
    truth = FolderTruth(tmp_path)
    assert np.array_equal(truth.labels_at(FRAME_NS), IDS)
    assert truth.name == str(tmp_path) and len(truth.stamps_ns) == 1


def test_the_nearest_file_within_the_tolerance(tmp_path):
    for index, milliseconds in enumerate((0, 33, 34, 100)):
        write_picture(tmp_path / f'5.{milliseconds:03}.png', np.full((2, 3), index, np.uint8))
    truth = FolderTruth(tmp_path)
    assert truth.stamps_ns == (5_000_000_000, 5_033_000_000, 5_034_000_000, 5_100_000_000)
    nearest = {0: 0, 0.9: 0, 1.1: None, -1: 0, -2: None, 33.4: 1, 33.6: 2, 100.9: 3, 102: None}
    for stamp_ms, index in nearest.items():
        labels = truth.labels_at(5_000_000_000 + round(stamp_ms * 1e6))
        assert (labels is None) if index is None else (labels == index).all(), stamp_ms


@pytest.mark.parametrize('bits', [4, 8])
def test_a_palette_gives_the_indices(tmp_path, bits):
    indices = np.array([[0, 1, 2], [10, 11, 3]], np.uint8)
    (tmp_path / '1.png').write_bytes(indexed_png(indices, [(128, 64, index) for index in range(12)], bits))
    assert np.array_equal(FolderTruth(tmp_path).labels_at(1), indices)


def test_void_is_unlabelled(tmp_path):
    write_picture(tmp_path / '1.png', IDS)
    expected = np.where(IDS == 11, 255, IDS)
    assert np.array_equal(FolderTruth(tmp_path, classes=11, void=11).labels_at(1), expected)
    assert np.array_equal(FolderTruth(tmp_path, void=11).labels_at(1), expected)


@pytest.mark.parametrize(('names', 'complaint'), [
    ((), 'expected label images, PNG files named by stamp, found none'),
    (('1.png', 'frame_0002.png', 'left.png'), "expected the frame's stamp as name, .* got 'frame_0002.png' and 1 more"),
    (('1.5.png', '1500000000.png'), '1.5.png and 1500000000.png are of the same stamp'),
])  # fmt: skip
def test_a_folder_that_is_no_ground_truth(tmp_path, names, complaint):
    for name in names:
        (tmp_path / name).write_bytes(b'')
    with pytest.raises(ValueError, match=f'{re.escape(str(tmp_path))}: {complaint}'):
        FolderTruth(tmp_path)
    with pytest.raises(ValueError, match='absent: expected a folder of label images'):
        FolderTruth(tmp_path / 'absent')


@pytest.mark.parametrize(('values', 'complaint', 'is_unreadable'), [
    (IDS, r'label 11 \(1 pixels\); legal are 0 to 10, and 255 for unlabelled', False),
    (np.full((2, 3), 300, np.uint16), r'label 300 \(6 pixels\)', False),
    (np.arange(18, dtype=np.uint8).reshape(2, 3, 3), 'expected one class id per pixel, got colours', True),
    (None, 'cut off', True),
])  # fmt: skip
def test_a_picture_that_is_no_label_image(tmp_path, values, complaint, is_unreadable):
    """One that cannot be read is told from one whose ids are illegal."""
    path = write_picture(tmp_path / '1.png', IDS if values is None else values)
    if values is None:
        path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match=rf'1\.png: .*{complaint}') as raised:
        FolderTruth(tmp_path, classes=11).labels_at(1)
    assert isinstance(raised.value, UnreadableLabelsError) is is_unreadable
