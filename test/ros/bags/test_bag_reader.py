"""The bag reader: both storages, raw and compressed images, and a clear word where a bag cannot be used."""

from pathlib import Path

import pytest
from bag_files import (
    CAMERA,
    COMPRESSED,
    COUNT,
    LOG_NS,
    RAW,
    STORE,
    TEXT,
    Sent,
    expected,
    read,
    serialised,
    write_mcap,
    write_messages,
)
from odd_bags import FRAMES, USELESS, WHOLE, mcap
from rosbags.rosbag2 import StoragePlugin

from hybrid_seg_ros.ros.bags.bag_content import BagError, read_stamp_ns, replace_stamp
from hybrid_seg_ros.ros.bags.bag_reader import BagReader

DRIVE = Path(__file__).parents[3] / 'bags' / 'camvid_val'


def write(folder, topics):
    """Write three messages of each topic; all but a text hold an Image, whatever their type."""
    return write_messages(folder, [
        Sent(name, msgtype, LOG_NS + index, b'\0\1\0\0\1\0\0\0\0' if msgtype == TEXT else serialised(index, name))
        for index in range(3) for name, msgtype in topics.items()
    ])  # fmt: skip


def test_the_shipped_drive_is_whole():
    with BagReader(DRIVE) as bag:
        camera, labels = bag.select_camera_topic(), bag.select_label_topic()
        assert (camera.name, camera.count) == ('/camera/image/compressed', 101)
        assert (labels.name, labels.count) == ('/camera/labels/compressed', 101)
        stamps = {topic.name: [m.stamp_ns for m in bag.messages([topic])] for topic in (camera, labels)}
        assert stamps[camera.name] == stamps[labels.name] == sorted(set(stamps[camera.name]))
    assert sum(file.stat().st_size for file in DRIVE.iterdir()) <= 8_000_000


@pytest.mark.parametrize('name', WHOLE)
def test_a_bag_that_lacks_nothing(tmp_path, name, caplog):
    bag = WHOLE[name](tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob('*') if file.is_file()}
    tmp_path.chmod(0o555)
    assert read(bag) == (expected(2 * FRAMES), None)
    assert {file: file.read_bytes() for file in tmp_path.rglob('*') if file.is_file()} == before
    if 'foreign' in name:
        (line,) = (each.getMessage() for each in caplog.records)
        for left_out in (f'{CAMERA} (foxglove.CompressedImage as protobuf, 12 ', '/scene (unknown as json, 12 '):
            assert left_out in line


@pytest.mark.parametrize('name', USELESS)
def test_a_bag_of_no_use(tmp_path, name):
    maker, complaint = USELESS[name]
    bag = maker(tmp_path)
    with pytest.raises(BagError, match=f'^bag {tmp_path}.*{complaint}'), BagReader(bag) as reader:  # noqa: PT012
        assert list(reader.messages([reader.select_camera_topic()])) == []
        reader.select_camera_topic(CAMERA)


@pytest.mark.parametrize('log_ns', [[0, 0, 0, 0], [-5, -4, 0, LOG_NS], [7, 7, 9, 9]])
def test_equal_and_negative_times(tmp_path, log_ns):
    """In the order in which they were written, where times are equal; SQLite holds negative ones, too."""
    messages = [Sent(CAMERA, RAW, each, serialised(index, CAMERA)) for index, each in enumerate(log_ns)]
    bags = [write_messages(tmp_path / 'db3', messages, StoragePlugin.SQLITE3)]
    if min(log_ns) >= 0:
        bags += [mcap(tmp_path, messages, use_chunking=chunked, file=f'{chunked}.mcap') for chunked in (True, False)]
        (tmp_path / 'split').mkdir()
        bags += [mcap(tmp_path / 'split', messages[:2], file='1.mcap').parent]
        mcap(tmp_path / 'split', messages[2:], file='2.mcap')
    for bag in bags:
        with BagReader(bag) as reader:
            frames = list(reader.messages(reader.camera_topics))
            assert [frame.log_ns for frame in frames] == log_ns and reader.damage is None
            assert [frame.cdr for frame in frames] == [message.cdr for message in messages]


def test_what_metadata_names_otherwise_is_said(tmp_path, caplog):
    for name, line in (
        ('MCAP renamed', 'drive of monday.mcap read instead of bag.mcap'),
        ('another file in the folder', 'other.mcap left out, as metadata.yaml does; to be opened alone'),
        ('split, no metadata', 'read as one: bag_0.mcap, bag_1.mcap, bag_2.mcap'),
        ('MCAP metadata cut off', 'read without metadata.yaml, which cannot be used'),
    ):
        (tmp_path / name).mkdir()
        with BagReader(WHOLE[name](tmp_path / name)):
            assert line in caplog.messages[-1]


@pytest.mark.parametrize('chunked', [True, False])
def test_iterations_at_once_do_not_disturb_each_other(tmp_path, chunked):
    with BagReader(write_mcap(tmp_path / 'drive.mcap', chunked=chunked)) as reader:
        camera, labels = reader.select_camera_topic(), reader.select_label_topic()
        next(reader.messages([labels]))  # one that is given up
        threes = list(zip(reader.messages([camera]), reader.messages([camera]), reader.messages([labels])))
        assert len(threes) == COUNT
        assert all(first.cdr == second.cdr and first.stamp_ns == third.stamp_ns for first, second, third in threes)


def test_messages_of_no_topic(tmp_path):
    with BagReader(write(tmp_path / 'bag', {'/camera': RAW})) as reader:
        assert list(reader.messages([])) == []


def test_labels_are_no_camera(tmp_path):
    topics = {'/front/image': RAW, '/front/labels': RAW, '/front/labels_preview': TEXT}
    with BagReader(write(tmp_path / 'bag', topics)) as reader:
        assert reader.select_camera_topic().name == '/front/image'
        assert reader.select_label_topic().name == '/front/labels'
    with BagReader(write(tmp_path / 'plain', {'/front/image': RAW})) as reader:
        assert reader.select_label_topic() is None


@pytest.mark.parametrize(
    ('topics', 'name', 'complaint'),
    [
        ({'/a': RAW, '/b': COMPRESSED}, None, r'several image topics: /a .*, /b .*choose with --topic NAME'),
        ({'/a': RAW, '/b': COMPRESSED}, '/c', r'no topic /c; it holds /a .*3 messages\), /b'),
        ({'/chatter': TEXT}, None, r'expected a topic of sensor_msgs/msg/Image .*found /chatter \(std_msgs'),
        ({'/chatter': TEXT}, 'chatter', 'expected images on /chatter, got std_msgs/msg/String'),
        ({}, None, 'found no topics'),
    ],
)
def test_a_topic_that_cannot_be_chosen(tmp_path, topics, name, complaint):
    with BagReader(write(tmp_path / 'bag', topics)) as reader, pytest.raises(BagError, match=complaint):
        reader.select_camera_topic(name)


def test_a_topic_recorded_without_its_slash_is_found_as_any_other(tmp_path):
    messages = [Sent('front/image', RAW, LOG_NS, serialised(0, 'front/image'))]
    with BagReader(mcap(tmp_path, messages, topics=('front/image',))) as reader:
        found = reader.select_camera_topic()
        assert reader.select_camera_topic(found.name) == reader.select_camera_topic('/front/image') == found


def test_a_topic_without_messages_is_not_chosen(tmp_path):
    with BagReader(mcap(tmp_path, [])) as reader:
        with pytest.raises(BagError, match='expected a topic of'):
            reader.select_camera_topic()
        with pytest.raises(BagError, match=f'{CAMERA} holds no messages'):
            reader.select_camera_topic(CAMERA)


@pytest.mark.parametrize('little_endian', [True, False])
def test_the_stamp_is_replaced_and_nothing_else(little_endian):
    image = STORE.deserialize_cdr(serialised(3, CAMERA), RAW)
    image.header.stamp.sec, image.header.stamp.nanosec = 12, 345_678_901
    cdr = bytes(STORE.serialize_cdr(image, RAW, little_endian=little_endian))
    assert read_stamp_ns(cdr) == 12_345_678_901
    changed = STORE.deserialize_cdr(replace_stamp(cdr, 98_000_000_007), RAW)
    assert (changed.header.stamp.sec, changed.header.stamp.nanosec) == (98, 7)
    assert (changed.header.frame_id, bytes(changed.data)) == ('camera', bytes(image.data))


def test_a_message_too_short_for_a_stamp():
    with pytest.raises(ValueError, match='expected a serialised message of at least 12 bytes, got 4'):
        read_stamp_ns(b'\0\1\0\0')
