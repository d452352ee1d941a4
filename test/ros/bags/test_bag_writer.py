"""The bag writer: what it writes can be read back to the last bit, and it writes all or nothing."""

import cv2
import numpy as np
import pytest

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.bag_writer import BagWriterError, WriteBagOptions, write_bag

SIZE_HW = (12, 20)


@pytest.fixture
def frames(tmp_path):
    """Three frames with labels 0, 1, 2, 11."""
    generator = np.random.default_rng(0)
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    for name in ('a', 'b', 'c'):
        cv2.imwrite(str(tmp_path / f'images/{name}.jpg'), generator.integers(0, 256, (*SIZE_HW, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f'labels/{name}.png'), generator.choice([0, 1, 2, 11], SIZE_HW).astype(np.uint8))
    return tmp_path


def options(frames, **changes):
    given = {'images': frames / 'images', 'labels': frames / 'labels', 'output': frames / 'bag', 'classes': 11}
    return WriteBagOptions(**{**given, **changes})


def read(bag):
    with BagReader(bag) as reader:
        return {topic.name: [(m, reader.deserialize(m)) for m in reader.messages([topic])] for topic in reader.topics}


def test_jpeg_files_are_kept_byte_for_byte(frames):
    assert write_bag(options(frames)) == 3
    images = [content for _, content in read(frames / 'bag')['/camera/image/compressed']]
    assert [bytes(image.data) for image in images] == [(frames / f'images/{n}.jpg').read_bytes() for n in 'abc']
    assert {(image.format, image.header.frame_id) for image in images} == {('jpeg', 'camera')}


def test_numbered_names_are_in_natural_order(frames):
    names = ('frame_1', 'frame_2', 'frame_10', 'frame_010', 'frame_10b', 'frames', '\u00b2')
    ordered = ('frame_1', 'frame_2', 'frame_010', 'frame_10', 'frame_10b', 'frames', '\u00b2')
    for file in (frames / 'images').iterdir():
        file.unlink()
    for index, name in enumerate(names):
        cv2.imwrite(str(frames / f'images/{name}.jpg'), np.full((*SIZE_HW, 3), 30 * index, np.uint8))
    (frames / 'images/._frame_1.jpg').write_bytes(b'what macOS leaves beside a file')
    assert write_bag(options(frames, labels=None)) == len(names)
    images = [bytes(content.data) for _, content in read(frames / 'bag')['/camera/image/compressed']]
    assert images == [(frames / f'images/{name}.jpg').read_bytes() for name in ordered]


def test_labels_are_lossless_and_void_becomes_255(frames):
    write_bag(options(frames))
    for name, (_, content) in zip('abc', read(frames / 'bag')['/camera/labels/compressed']):
        given = cv2.imread(str(frames / f'labels/{name}.png'), cv2.IMREAD_UNCHANGED)
        stored = cv2.imdecode(np.asarray(content.data), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(stored, np.where(given == 11, 255, given))


def test_stamps_follow_the_rate_and_agree_between_topics(frames):
    write_bag(options(frames, rate_hz=15.0))
    content = read(frames / 'bag')
    stamps = [message.stamp_ns for message, _ in content['/camera/image/compressed']]
    assert np.diff(stamps) == pytest.approx([1e9 / 15] * 2, abs=1)
    assert stamps == [message.stamp_ns for message, _ in content['/camera/labels/compressed']]
    assert all(message.stamp_ns == message.log_ns for message, _ in content['/camera/image/compressed'])


def test_same_input_same_bytes(frames):
    for folder in ('one', 'two'):
        write_bag(options(frames, output=frames / folder / 'bag'))
    for file in (frames / 'one/bag').iterdir():
        assert file.read_bytes() == (frames / 'two/bag' / file.name).read_bytes()


def test_quality_encodes_anew(frames):
    write_bag(options(frames, quality=20))
    image = read(frames / 'bag')['/camera/image/compressed'][0][1]
    assert cv2.imdecode(np.asarray(image.data), cv2.IMREAD_COLOR).shape == (*SIZE_HW, 3)
    assert len(image.data) < (frames / 'images/a.jpg').stat().st_size


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda f: (f / 'bag').mkdir(), 'exists already'),
        (lambda f: (f / 'labels/b.png').unlink(), '1 label images are missing, the first is b.png'),
        (lambda f: (f / 'labels/b.png').write_bytes(b'no image'), 'b.png: cannot be decoded'),
        (lambda f: cv2.imwrite(str(f / 'labels/b.png'), np.zeros((2, 2, 3), np.uint8)), 'expected labels'),
        (lambda f: cv2.imwrite(str(f / 'images/b.png'), np.zeros((2, 2, 3), np.uint8)), 'give a quality'),
        (lambda f: [file.unlink() for file in (f / 'images').iterdir()], 'expected images'),
    ],
    ids=['exists', 'label missing', 'label damaged', 'label colour', 'png needs quality', 'empty'],
)  # fmt: skip
def test_all_or_nothing(frames, spoil, message):
    spoil(frames)
    before = sorted(frames.rglob('*'))
    with pytest.raises(BagWriterError, match=message):
        write_bag(options(frames))
    assert sorted(frames.rglob('*')) == before


@pytest.mark.parametrize('changes', [{'rate_hz': 0.0}, {'quality': 101}, {'classes': 0}])
def test_impossible_options_are_refused(frames, changes):
    with pytest.raises(BagWriterError, match='expected'):
        options(frames, **changes)


def test_command(frames, capsys):
    given = ['write-bag', str(frames / 'images'), str(frames / 'bag'), '--labels', str(frames / 'labels')]
    assert main([*given, '--classes', '11']) == 0
    assert '3 frames at 15 Hz' in capsys.readouterr().out
    assert main(given) == 1
    assert 'exists already' in capsys.readouterr().err
