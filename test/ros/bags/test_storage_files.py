"""Damaged bags, read tolerantly: what comes is right, it is as much as there is, and the bag says what is wrong."""

import pytest
from bag_files import CAMERA, COUNT, LABELS, RAW, cut, expected, read, storage_of, write_folder, write_mcap
from odd_bags import DAMAGED, FRAMES
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from hybrid_seg_ros.ros.bags.bag_reader import BagReader

SPLIT_BUT_WHOLE = ('split, one file missing', 'split, one file empty')
"""All frames are in the other files."""


@pytest.mark.parametrize('name', DAMAGED)
def test_a_damaged_bag_is_read_as_far_as_it_goes(tmp_path, name):
    """What comes is right, and in order; it is less than all, or else only the index is damaged."""
    messages, damage = read(DAMAGED[name](tmp_path))
    everything = expected(2 * FRAMES)
    assert messages == [each for each in everything if each in messages]
    assert (len(messages) < len(everything)) is (name not in ('MCAP with a bad index', *SPLIT_BUT_WHOLE)) and messages
    assert damage and ('messages could be read' in damage or 'is damaged and left out' in damage)


@pytest.mark.parametrize('spared', [False, True])
def test_a_message_that_is_garbage_is_left_out(tmp_path, spared):
    path = write_mcap(tmp_path / 'drive.mcap', garbage={CAMERA: [7]})
    if not spared:
        cut(path, path.stat().st_size - 4)
    messages, damage = read(path)
    assert messages == [key for key in expected() if key != (CAMERA, 7)]
    assert '1 message is damaged and left out, the first on /camera/image at 7.700 s (Invalid string length' in damage
    assert ('79 of 80 messages could be read' in damage) is not spared


@pytest.mark.parametrize('spared', [False, True])
def test_broken_messages_of_one_time_are_counted_each(tmp_path, spared):
    path = write_mcap(tmp_path / 'drive.mcap', garbage={CAMERA: [7, 20]}, period_ns=0)
    if not spared:
        cut(path, path.stat().st_size - 4)
    with BagReader(path) as bag:
        for _ in range(2):
            assert len(list(bag.messages([bag.select_camera_topic()]))) == COUNT - 2
            assert bag.select_camera_topic().count == COUNT - 2
            assert '2 messages are damaged and left out, the first on /camera/image at 7.000 s' in bag.damage


@pytest.mark.parametrize('has_metadata', [True, False])
def test_several_files_of_which_one_is_missing_and_one_empty(tmp_path, has_metadata):
    names = [f'bag_{number}.mcap' for number in (1, 2, 3, 10)]
    for place, name in enumerate(names):
        write_mcap(tmp_path / name, first=place * COUNT)
    if has_metadata:
        listing = '\n'.join(f'  - {name}' for name in names)
        (tmp_path / 'metadata.yaml').write_text(f'rosbag2_bagfile_information:\n  relative_file_paths:\n{listing}\n')
    (tmp_path / names[1]).unlink()
    (tmp_path / names[2]).write_bytes(b'')
    messages, damage = read(tmp_path)
    camera = [index for topic, index in messages if topic == CAMERA]
    assert camera == [*range(COUNT), *range(3 * COUNT, 4 * COUNT)]
    assert ('bag_2.mcap is missing' in damage) is has_metadata
    assert 'bag_3.mcap is empty: 160 messages' in damage


def test_a_file_compressed_as_a_whole_and_cut_off(tmp_path):
    folder = write_folder(tmp_path / 'bag', StoragePlugin.SQLITE3, CompressionMode.FILE, count=1500)
    file = storage_of(folder)
    cut(file, file.stat().st_size // 2)
    messages, damage = read(folder, topics=(CAMERA,))
    assert [index for _, index in messages] == list(range(len(messages))) and len(messages) > 100
    assert 'bag.db3.zstd is damaged or cut off' in damage


def test_the_topics_of_a_damaged_bag_can_be_chosen_from(tmp_path):
    path = write_mcap(tmp_path / 'drive.mcap')
    cut(path, path.stat().st_size // 2)
    with BagReader(path) as bag:
        assert (bag.select_camera_topic().name, bag.select_label_topic().name) == (CAMERA, LABELS)
        assert all(topic.msgtype == RAW and 0 < topic.count < COUNT for topic in bag.topics)
