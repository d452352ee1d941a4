"""The bag reader: both storages, raw and compressed images, and a clear word where a bag cannot be used."""

from pathlib import Path

import numpy as np
import pytest
from bag_files import COUNT, write_mcap
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from hybrid_seg_ros.ros.bags.bag_reader import BagError, BagReader
from hybrid_seg_ros.ros.cdr_header import read_stamp_ns, replace_stamp

DRIVE = Path(__file__).parents[3] / 'bags' / 'camvid_val'
STORE = get_typestore(Stores.ROS2_HUMBLE)
RAW, COMPRESSED, TEXT = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage', 'std_msgs/msg/String'


def message(msgtype, stamp_ns):
    if msgtype == TEXT:
        return STORE.types[TEXT]('hello')
    stamp = STORE.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
    header = STORE.types['std_msgs/msg/Header'](stamp, 'camera')
    pixels = np.arange(12, dtype=np.uint8)
    if msgtype == COMPRESSED:
        return STORE.types[COMPRESSED](header, 'jpeg', pixels)
    return STORE.types[RAW](header, 2, 2, 'rgb8', 0, 6, pixels)


def write(folder, topics, storage=StoragePlugin.MCAP, compression=CompressionMode.NONE, count=3):
    writer = Writer(folder, version=8, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        links = [writer.add_connection(name, msgtype, typestore=STORE) for name, msgtype in topics.items()]
        for index in range(count):
            for link in links:
                data = STORE.serialize_cdr(message(link.msgtype, 5_000_000_000 + index), link.msgtype)
                writer.write(link, 7_000_000_000 + index, data)
    return folder


def test_the_shipped_drive_is_whole():
    with BagReader(DRIVE) as bag:
        camera, labels = bag.select_camera_topic(), bag.select_label_topic()
        assert (camera.name, camera.count) == ('/camera/image/compressed', 101)
        assert (labels.name, labels.count) == ('/camera/labels/compressed', 101)
        stamps = {topic.name: [m.stamp_ns for m in bag.messages([topic])] for topic in (camera, labels)}
        assert stamps[camera.name] == stamps[labels.name] == sorted(set(stamps[camera.name]))
    assert sum(file.stat().st_size for file in DRIVE.iterdir()) <= 8_000_000


@pytest.mark.parametrize('compression', [CompressionMode.NONE, CompressionMode.MESSAGE, CompressionMode.FILE])
@pytest.mark.parametrize('storage', list(StoragePlugin))
@pytest.mark.parametrize('msgtype', [RAW, COMPRESSED])
def test_every_kind_of_bag(tmp_path, storage, compression, msgtype):
    bag = write(tmp_path / 'bag', {'/camera': msgtype, '/chatter': TEXT}, storage, compression)
    with BagReader(bag) as reader:
        frames = list(reader.messages([reader.select_camera_topic()]))
        assert [(f.topic.name, f.log_ns, f.stamp_ns) for f in frames] == [
            ('/camera', 7_000_000_000 + i, 5_000_000_000 + i) for i in range(3)
        ]
        content = reader.deserialize(frames[1])
        assert content.header.frame_id == 'camera'
        assert bytes(content.data) == bytes(range(12))


@pytest.mark.parametrize('storage', list(StoragePlugin))
def test_a_single_file_opens_like_its_folder(tmp_path, storage):
    folder = write(tmp_path / 'bag', {'/camera': RAW}, storage)
    (file,) = (f for f in folder.iterdir() if f.suffix in ('.mcap', '.db3'))
    with BagReader(file) as reader:
        assert len(list(reader.messages([reader.select_camera_topic()]))) == 3
    (folder / 'metadata.yaml').unlink()
    with pytest.raises(BagError, match=f'no metadata.yaml.*can be opened by itself: .*{file.name}'):
        BagReader(folder)


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


def test_a_topic_without_messages_is_not_chosen(tmp_path):
    with BagReader(write(tmp_path / 'bag', {'/a': RAW}, count=0)) as reader:
        with pytest.raises(BagError, match='expected a topic of'):
            reader.select_camera_topic()
        with pytest.raises(BagError, match='/a holds no messages'):
            reader.select_camera_topic('/a')


@pytest.mark.parametrize('storage', list(StoragePlugin))
@pytest.mark.parametrize('kept', [0.0, 0.3, 0.9])
def test_a_cut_off_bag(tmp_path, storage, kept):
    folder = write(tmp_path / 'bag', {'/camera': RAW}, storage, count=2000)
    (file,) = (f for f in folder.iterdir() if f.suffix in ('.mcap', '.db3'))
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    for path in (folder, file):
        with pytest.raises(BagError, match='cannot be read; it may be damaged'), BagReader(path) as reader:
            list(reader.messages(reader.camera_topics))


@pytest.mark.parametrize('content', ['', 'a: [', 'rosbag2_bagfile_information: 3'])
def test_damaged_metadata(tmp_path, content):
    folder = write(tmp_path / 'bag', {'/camera': RAW})
    (folder / 'metadata.yaml').write_text(content)
    with pytest.raises(BagError, match='cannot be read'), BagReader(folder):
        pass


def test_paths_that_are_no_bag(tmp_path):
    (tmp_path / 'notes.txt').write_text('hello')
    for path, complaint in (
        (tmp_path / 'absent', 'no such file or folder'),
        (tmp_path / 'notes.txt', "or a .mcap or .db3 file, got 'notes.txt'"),
        (tmp_path, 'has no metadata.yaml'),
    ):
        with pytest.raises(BagError, match=complaint):
            BagReader(path)


@pytest.mark.parametrize('little_endian', [True, False])
def test_the_stamp_is_replaced_and_nothing_else(little_endian):
    cdr = bytes(STORE.serialize_cdr(message(RAW, 12_345_678_901), RAW, little_endian=little_endian))
    assert read_stamp_ns(cdr) == 12_345_678_901
    changed = STORE.deserialize_cdr(replace_stamp(cdr, 98_000_000_007), RAW)
    assert (changed.header.stamp.sec, changed.header.stamp.nanosec) == (98, 7)
    assert (changed.header.frame_id, bytes(changed.data)) == ('camera', bytes(range(12)))


def test_a_message_too_short_for_a_stamp():
    with pytest.raises(ValueError, match='expected a serialised message of at least 12 bytes, got 4'):
        read_stamp_ns(b'\0\1\0\0')
