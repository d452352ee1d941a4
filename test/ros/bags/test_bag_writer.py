"""The bag writer: what it writes can be read back to the last bit, and it writes all or nothing."""

import unicodedata

import cv2
import numpy as np
import pytest
from picture_files import indexed_png, with_orientation, write_picture

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.bag_writer import WriteBagOptions, write_bag
from hybrid_seg_ros.ros.image_decoding import compressed_to_rgb

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
        (lambda f: (f / 'labels/b.png').write_bytes(b'no image'), 'labels/b.png: not a readable image'),
        (lambda f: cut(f / 'labels/b.png'), 'labels/b.png: the file is cut off'),
        (lambda f: cut(f / 'images/b.jpg'), 'images/b.jpg: the file is cut off'),
        (lambda f: write_picture(f / 'labels/b.png', np.arange(48, dtype=np.uint8).reshape(4, 4, 3)), 'got colours'),
        (lambda f: write_picture(f / 'labels/b.png', np.zeros((20, 12), np.uint8)), 'of b.jpg, 20x12, got 12x20'),
        (lambda f: write_picture(f / 'labels/b.tif', np.zeros(SIZE_HW, np.uint8)), 'for b, got b.png and b.tif'),
        (lambda f: cv2.imwrite(str(f / 'images/b.png'), np.zeros((2, 2, 3), np.uint8)), 'give a quality'),
        (lambda f: [file.unlink() for file in (f / 'images').iterdir()], 'expected images'),
    ],
    ids=['exists', 'label missing', 'label damaged', 'label cut', 'image cut', 'label colour',
         'label turned', 'two label files', 'png needs quality', 'empty'],
)  # fmt: skip
def test_all_or_nothing(frames, spoil, message):
    spoil(frames)
    before = sorted(frames.rglob('*'))
    with pytest.raises(ValueError, match=message):
        write_bag(options(frames))
    assert sorted(frames.rglob('*')) == before


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_palette_and_16_bits_and_few_bits_and_another_size(frames):
    values = np.random.default_rng(1).choice([0, 1, 11], SIZE_HW).astype(np.uint8)
    (frames / 'labels/a.png').write_bytes(indexed_png(values, [(index, 9, 9) for index in range(16)], 4))
    write_picture(frames / 'labels/b.png', values.astype(np.uint16) * 300)
    (frames / 'labels/c.png').write_bytes(indexed_png(values[::2, ::2], None, 4))
    write_bag(options(frames))
    stored = [cv2.imdecode(np.asarray(content.data), cv2.IMREAD_UNCHANGED)
              for _, content in read(frames / 'bag')['/camera/labels/compressed']]  # fmt: skip
    assert np.array_equal(stored[0], np.where(values == 11, 255, values))
    assert np.array_equal(stored[1], np.where(values == 0, 0, 255))
    assert np.array_equal(stored[2], stored[0][::2, ::2])


def test_exif_turns_images_as_data_sets_do(frames, caplog):
    """Nobody turns what comes from a camera, and labels are made for the image as people see it."""
    squares = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((16, 16), np.uint8))
    picture = np.dstack([squares] * 3)
    for name, orientation in zip('abc', (1, 3, 6)):
        (frames / f'images/{name}.jpg').write_bytes(with_orientation(picture, orientation, 'JPEG'))
        size_hw = (48, 32) if orientation == 6 else (32, 48)
        write_picture(frames / f'labels/{name}.png', np.zeros(size_hw, np.uint8))
    write_bag(options(frames))
    images = [compressed_to_rgb(content) for _, content in read(frames / 'bag')['/camera/image/compressed']]
    for image, turned in zip(images, (picture, picture[::-1, ::-1], np.rot90(picture, -1))):
        assert image.shape == turned.shape and np.abs(image[8::16, 8::16].astype(int) - turned[8::16, 8::16]).max() < 9
    assert '2 images are encoded anew, as EXIF turns them' in caplog.text


def test_natural_order_unicode_and_hidden_files(tmp_path):
    stems = ['frame_1', 'frame_2', 'frame_10', 'z\u00e9bu_1']
    for shade, stem in enumerate(stems):
        apart, together = (unicodedata.normalize(form, stem) for form in ('NFD', 'NFC'))
        write_picture(tmp_path / f'images/{apart}.jpg', np.full((16, 16, 3), 60 * shade, np.uint8))
        write_picture(tmp_path / f'labels/{together}.png', np.full((16, 16), shade, np.uint8))
    for name in ('._frame_1', '.frame_3'):
        (tmp_path / f'images/{name}.jpg').write_bytes(b'what a Mac leaves behind')
        (tmp_path / f'labels/{name}.png').write_bytes(b'what a Mac leaves behind')
    (tmp_path / 'images/folder.jpg').mkdir()
    assert write_bag(options(tmp_path)) == 4
    content = read(tmp_path / 'bag')
    labels = [compressed_to_rgb(each) for _, each in content['/camera/labels/compressed']]
    images = [compressed_to_rgb(each) for _, each in content['/camera/image/compressed']]
    assert [int(each[0, 0, 0]) for each in labels] == [0, 1, 2, 3]
    assert [round(each.mean() / 60) for each in images] == [0, 1, 2, 3]


@pytest.mark.parametrize('changes', [{'rate_hz': 0.0}, {'quality': 101}, {'classes': 0}])
def test_impossible_options_are_refused(frames, changes):
    with pytest.raises(ValueError, match='expected'):
        options(frames, **changes)


def test_command(frames, capsys):
    given = ['write-bag', str(frames / 'images'), str(frames / 'bag'), '--labels', str(frames / 'labels')]
    assert main([*given, '--classes', '11']) == 0
    assert '3 frames at 15 Hz' in capsys.readouterr().out
    assert main(given) == 1
    assert 'exists already' in capsys.readouterr().err
