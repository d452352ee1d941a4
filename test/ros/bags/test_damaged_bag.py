"""Damaged bags, read tolerantly: what comes is right, it is as much as there is, and the bag says what is wrong."""

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from bag_files import (
    CAMERA,
    COMPRESSIONS,
    COUNT,
    LABELS,
    LOG_NS,
    PERIOD_NS,
    RAW,
    STAMP_NS,
    chunk_places,
    cut,
    flip,
    picture,
    serialised,
    write_folder,
    write_mcap,
)  # fmt: skip
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from hybrid_seg_ros.ros.bags.bag_reader import BagError, BagReader

MCAP, DB3 = StoragePlugin.MCAP, StoragePlugin.SQLITE3
ALL = 2 * COUNT


def read(path, topics=(CAMERA, LABELS)):
    """Read a bag to its end twice, check every message, and return (topic, index) of each, with the damage."""
    with BagReader(path, tolerant=True) as bag:
        wanted = [topic for topic in bag.topics if topic.name in topics]
        runs = [list(bag.messages(wanted)) for _ in range(2)]
        keys = [[(m.topic.name, (m.stamp_ns - STAMP_NS) // PERIOD_NS) for m in run] for run in runs]
        assert keys[0] == keys[1]
        for (name, index), message in zip(keys[0], runs[0]):
            assert message.log_ns == LOG_NS + index * PERIOD_NS
            assert bytes(bag.deserialize(message).data) == picture(index, name).tobytes()
        counts = {topic.name: topic.count for topic in bag.topics if topic.name in topics}
        assert counts == {name: sum(key[0] == name for key in keys[0]) for name in counts}
        return keys[0], bag.damage


def expected(count=ALL):
    return [(topic, index) for index in range(COUNT) for topic in (CAMERA, LABELS)][:count]


def storage_of(folder):
    (file,) = (file for file in folder.iterdir() if file.name != 'metadata.yaml')
    return file


@pytest.mark.parametrize('storage', [MCAP, DB3])
@pytest.mark.parametrize('compression', [CompressionMode.NONE, CompressionMode.MESSAGE, CompressionMode.FILE])
def test_a_healthy_bag_goes_the_ordinary_way(tmp_path, monkeypatch, storage, compression):
    folder = write_folder(tmp_path / 'bag', storage, compression)
    monkeypatch.setattr(BagReader, '_salvage', lambda self, cause: pytest.fail(f'{cause}'))
    assert read(folder) == (expected(), None)


@pytest.mark.parametrize('chunked', [True, False])
@pytest.mark.parametrize('compression', COMPRESSIONS)
def test_an_mcap_cut_off_anywhere(tmp_path, compression, chunked):
    """Whatever the file is cut to, the messages are a beginning of all, and grow with it."""
    path = write_mcap(tmp_path / 'whole.mcap', compression, chunked)
    ends = [end for _, end in chunk_places(path)] if chunked else []
    size, counts = path.stat().st_size, []
    for kept in (20, *range(size // 10, size - 400, size // 10), size - 300, size - 20, size - 4):
        copy = Path(shutil.copy(path, tmp_path / 'cut.mcap'))
        cut(copy, kept)
        whole_chunks = sum(end <= kept for end in ends)
        try:
            messages, damage = read(copy)
        except BagError as error:
            assert 'cannot be read; it may be damaged' in str(error)
            assert not whole_chunks
            messages = []
        else:
            is_whole = len(messages) == ALL
            wanted = 'has a damaged index|is cut off' if is_whole else r'cut.mcap is cut off, .* recorder killed\?'
            assert re.match(f'.*({wanted}).*: {len(messages)} messages could be read', damage)
        assert messages == expected(len(messages))
        assert len(messages) >= ALL * whole_chunks // (len(ends) or 1) - 5
        counts.append(len(messages))
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == ALL and len(set(counts)) > 5


def test_how_far_a_bag_was_read(tmp_path):
    path = write_mcap(tmp_path / 'drive.mcap')
    cut(path, chunk_places(path)[4][1])
    messages, damage = read(path)
    assert damage == (
        'drive.mcap is cut off, so that its index is missing (was the recorder killed?): '
        f'{len(messages)} messages could be read, up to {messages[-1][1] / 10:.1f} s after the first'
    )


@pytest.mark.parametrize('compression', COMPRESSIONS)
def test_a_chunk_with_a_wrong_checksum_is_left_out(tmp_path, compression):
    path = write_mcap(tmp_path / 'drive.mcap', compression)
    start, end = chunk_places(path)[5]
    flip(path, (start + end) // 2)
    messages, damage = read(path)
    assert len(messages) < ALL and set(messages) < set(expected()) and messages == sorted(messages, key=lambda m: m[1])
    assert messages[-1] == expected()[-1]
    assert damage == (
        f'drive.mcap has 1 damaged chunk: {len(messages)} of {ALL} messages could be read, up to 3.9 s after the first'
    )


def test_damage_that_shows_in_reading_is_known_then(tmp_path):
    """Two iterations at once; what was given before the damage was found does not come again."""
    path = write_mcap(tmp_path / 'drive.mcap')
    flip(path, sum(chunk_places(path)[5]) // 2)
    with BagReader(path, tolerant=True) as bag:
        assert bag.damage is None
        pairs = list(zip(*(bag.messages([topic]) for topic in bag.topics)))
        assert 'damaged chunk' in bag.damage
        assert COUNT > len(pairs) == len({camera.stamp_ns for camera, _ in pairs}) > COUNT - 5
    with pytest.raises(BagError, match='Chunk checksum mismatch'), BagReader(path) as bag:
        list(bag.messages(bag.topics))


def test_without_checksums_a_chunk_is_read_up_to_the_damage(tmp_path):
    path = write_mcap(tmp_path / 'drive.mcap', crcs=False)
    start, end = chunk_places(path)[5]
    place = path.read_bytes().index(serialised(13, LABELS), start, end)
    flip(path, place - 31 + 7)  # the length of the record that holds it
    messages, damage = read(path)
    assert (CAMERA, 13) in messages and (LABELS, 13) not in messages and messages[-1] == expected()[-1]
    assert damage.startswith('drive.mcap has 1 damaged chunk: ')


def test_messages_that_the_index_names_and_that_are_missing(tmp_path):
    """The last record of a chunk without a checksum no longer says that it is a message."""
    path = write_mcap(tmp_path / 'drive.mcap', crcs=False)
    start, end = chunk_places(path)[5]
    place = max(place for place in (path.read_bytes().find(serialised(13, topic), start, end)
                                    for topic in (CAMERA, LABELS)))  # fmt: skip
    flip(path, place - 31)  # its opcode
    messages, damage = read(path)
    assert len(messages) == ALL - 1
    assert damage == '1 message is missing that the index names'


@pytest.mark.parametrize('place', [1, 7, 0])
def test_a_record_that_hides_the_next_one_is_passed_over(tmp_path, place):
    """With an index that is whole, and the beginning of the file broken so that it must be read record by record."""
    path = write_mcap(tmp_path / 'drive.mcap')
    flip(path, 8 + 9 + 3)  # the header
    flip(path, chunk_places(path)[5][0] + place)
    messages, damage = read(path)
    assert messages[0] == expected()[0] and messages[-1] == expected()[-1] and len(messages) >= ALL - 5
    assert 'drive.mcap is damaged in' in damage and 'passed over' in damage


def test_without_an_index_reading_ends_at_the_damage(tmp_path):
    path = write_mcap(tmp_path / 'drive.mcap', chunked=False)
    place = path.read_bytes().index(serialised(20, CAMERA))
    flip(path, place - 31 + 7)
    messages, damage = read(path)
    assert messages == expected(40)
    assert '% into it, and cannot be followed further: 40' in damage


@pytest.mark.parametrize('spared', [False, True])
def test_a_message_that_is_garbage_is_left_out(tmp_path, spared):
    path = write_mcap(tmp_path / 'drive.mcap', garbage_at=7)
    if not spared:
        cut(path, path.stat().st_size - 4)
    messages, damage = read(path)
    assert messages == [key for key in expected() if key != (CAMERA, 7)]
    assert '1 message is damaged and left out, the first on /camera/image at 7.700 s (Invalid string length' in damage
    assert ('79 messages could be read' in damage) is not spared


@pytest.mark.parametrize('kept', [0.3, 0.6, 0.9])
@pytest.mark.parametrize('compression', [CompressionMode.NONE, CompressionMode.MESSAGE])
def test_a_database_cut_off(tmp_path, compression, kept):
    folder = write_folder(tmp_path / 'bag', DB3, compression, count=200)
    file = storage_of(folder)
    cut(file, int(file.stat().st_size * kept))
    messages, damage = read(folder)
    everything = [(topic, index) for index in range(200) for topic in (CAMERA, LABELS)]
    assert messages == everything[: len(messages)]
    assert 400 * (kept - 0.2) < len(messages) < 400 * kept
    assert re.match(rf'bag.db3 is damaged or cut off \(.*(malformed|row).*\): {len(messages)} messages', damage)


def test_a_database_with_a_bad_page(tmp_path):
    folder = write_folder(tmp_path / 'bag', DB3, count=200)
    file = storage_of(folder)
    flip(file, file.stat().st_size // 8192 * 4096, 4096)
    messages, damage = read(folder)
    assert 100 < len(messages) < 300 and 'malformed' in damage
    with pytest.raises(BagError), BagReader(folder) as bag:
        list(bag.messages(bag.topics))


def test_a_write_ahead_log_is_read(tmp_path):
    """As the `resilient` profile of rosbag2 leaves it when it is killed: the newest messages are not in the file."""
    folder = write_folder(tmp_path / 'bag', DB3, count=10)
    (folder / 'metadata.yaml').unlink()
    file = storage_of(folder)
    recorder = sqlite3.connect(file)
    recorder.execute('PRAGMA journal_mode = WAL')
    recorder.execute('INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)',
                     (LOG_NS + 10 * PERIOD_NS, serialised(10, CAMERA)))  # fmt: skip
    recorder.commit()
    (tmp_path / 'killed').mkdir()
    for each in folder.iterdir():
        if not each.name.endswith('-shm'):
            shutil.copy(each, tmp_path / 'killed')
    recorder.close()
    for path in (tmp_path / 'killed', tmp_path / 'killed' / file.name):
        messages, damage = read(path)
        assert messages == [*expected(20), (CAMERA, 10)]
        assert 'bag.db3 was left open, with a write-ahead log bag.db3-wal: 21 messages' in damage


@pytest.mark.parametrize('metadata', [None, '', 'a: [', 'rosbag2_bagfile_information: 3', 200])
@pytest.mark.parametrize('storage', [MCAP, DB3])
@pytest.mark.parametrize('compression', [CompressionMode.NONE, CompressionMode.MESSAGE, CompressionMode.FILE])
def test_metadata_missing_or_damaged(tmp_path, storage, compression, metadata):
    folder = write_folder(tmp_path / 'bag', storage, compression, count=5)
    file = folder / 'metadata.yaml'
    if metadata is None:
        file.unlink()
    else:
        file.write_text(file.read_text()[:metadata] if isinstance(metadata, int) else metadata)
    messages, damage = read(folder)
    assert messages == expected(10)
    problem = 'metadata.yaml is missing (was the recorder killed?)' if metadata is None else 'metadata is damaged'
    assert problem in damage.replace('.yaml is damaged', ' is damaged')
    assert damage.endswith(': 10 messages could be read, up to 0.4 s after the first')


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
    assert ('metadata.yaml is missing' in damage) is not has_metadata
    assert 'bag_3.mcap is empty: 160 messages' in damage


def test_a_file_compressed_as_a_whole_and_cut_off(tmp_path):
    folder = write_folder(tmp_path / 'bag', DB3, CompressionMode.FILE, count=1500)
    file = storage_of(folder)
    cut(file, file.stat().st_size // 2)
    messages, damage = read(folder, topics=(CAMERA,))
    assert [index for _, index in messages] == list(range(len(messages))) and len(messages) > 100
    assert 'bag.db3.zstd is damaged or cut off' in damage


@pytest.mark.parametrize('damage', ['empty', 'cut', 'zeros', 'no files'])
@pytest.mark.parametrize('storage', [MCAP, DB3])
def test_nothing_can_be_read(tmp_path, storage, damage):
    folder = write_folder(tmp_path / 'bag', storage)
    file = storage_of(folder)
    if damage == 'no files':
        file.unlink()
    else:
        file.write_bytes({'empty': b'', 'cut': file.read_bytes()[:40], 'zeros': bytes(5000)}[damage])
    with pytest.raises(BagError, match=f'bag {folder}: '), BagReader(folder, tolerant=True):
        pass


def test_a_folder_without_a_bag_and_a_path_that_is_none(tmp_path):
    for path, complaint in ((tmp_path, 'has no metadata.yaml'), (tmp_path / 'absent', 'no such file or folder')):
        with pytest.raises(BagError, match=complaint), BagReader(path, tolerant=True):
            pass


def test_the_topics_of_a_damaged_bag_can_be_chosen_from(tmp_path):
    path = write_mcap(tmp_path / 'drive.mcap')
    cut(path, path.stat().st_size // 2)
    with BagReader(path, tolerant=True) as bag:
        assert (bag.select_camera_topic().name, bag.select_label_topic().name) == (CAMERA, LABELS)
        assert all(topic.msgtype == RAW and 0 < topic.count < COUNT for topic in bag.topics)
