"""MCAP files that are damaged or cut off, read tolerantly: cut anywhere, with bad chunks, with and without an index."""

import re
import shutil
from pathlib import Path

import pytest
from bag_files import (
    ALL,
    CAMERA,
    COMPRESSIONS,
    COUNT,
    LABELS,
    chunk_places,
    cut,
    expected,
    flip,
    read,
    serialised,
    write_mcap,
)

from hybrid_seg_ros.ros.bags.bag_content import BagError
from hybrid_seg_ros.ros.bags.bag_reader import BagReader


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
            assert 'nothing could be read' in str(error)
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
    assert damage.startswith(f'drive.mcap has 1 damaged chunk (at byte {start}: ')
    assert damage.endswith(f'): {len(messages)} of {ALL} messages could be read, up to 3.9 s after the first')


def test_damage_that_shows_in_reading_is_known_then(tmp_path):
    """Two iterations at once; what was given before the damage was found does not come again."""
    path = write_mcap(tmp_path / 'drive.mcap')
    flip(path, sum(chunk_places(path)[5]) // 2)
    with BagReader(path) as bag:
        assert bag.damage is None
        pairs = list(zip(*(bag.messages([topic]) for topic in bag.topics)))
        assert 'damaged chunk' in bag.damage
        assert COUNT > len(pairs) == len({camera.stamp_ns for camera, _ in pairs}) > COUNT - 5


def test_without_checksums_a_chunk_is_read_up_to_the_damage(tmp_path):
    path = write_mcap(tmp_path / 'drive.mcap', crcs=False)
    start, end = chunk_places(path)[5]
    place = path.read_bytes().index(serialised(13, LABELS), start, end)
    flip(path, place - 31 + 7)  # the length of the record that holds it
    messages, damage = read(path)
    assert (CAMERA, 13) in messages and (LABELS, 13) not in messages and messages[-1] == expected()[-1]
    assert damage.startswith(f'drive.mcap has 1 damaged chunk (at byte {start}: ')


def test_messages_that_the_index_names_and_that_are_missing(tmp_path):
    """The last record of a chunk without a checksum no longer says that it is a message."""
    path = write_mcap(tmp_path / 'drive.mcap', crcs=False)
    start, end = chunk_places(path)[5]
    place = max(place for place in (path.read_bytes().find(serialised(13, topic), start, end)
                                    for topic in (CAMERA, LABELS)))  # fmt: skip
    flip(path, place - 31)  # its opcode
    messages, damage = read(path)
    assert len(messages) == ALL - 1
    assert damage.startswith(f'drive.mcap has 1 damaged chunk (at byte {start}: messages of no topic: 0, missing')


def test_a_message_outside_of_chunks_that_is_missing(tmp_path):
    path = write_mcap(tmp_path / 'drive.mcap', chunked=False)
    flip(path, path.read_bytes().index(serialised(13, LABELS)) - 31)  # its opcode
    messages, damage = read(path)
    assert len(messages) == ALL - 1
    assert damage.startswith(f'drive.mcap lacks 1 message that its index names: {ALL - 1} messages could be read')


@pytest.mark.parametrize('place', [1, 7, 0])
def test_a_record_that_hides_the_next_one_is_passed_over(tmp_path, place):
    """With an index that is whole."""
    path = write_mcap(tmp_path / 'drive.mcap')
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
