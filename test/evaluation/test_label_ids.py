"""Class ids of ground truth: which are legal, which mean unlabelled, and how they come out of a PNG."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hybrid_seg_ros.evaluation.label_ids import decode_label_png, label_id_code, read_label_values
from picture_files import indexed_png, write_picture

VALUES = np.array([[0, 10, 11], [0, 255, 3]], np.uint8)
PNG = cv2.imencode('.png', VALUES)[1].tobytes()


@pytest.mark.parametrize(
    ('classes', 'void', 'expected'),
    [
        (None, None, VALUES),
        (12, None, VALUES),
        (11, 11, [[0, 10, 255], [0, 255, 3]]),
        (None, 0, [[255, 10, 11], [255, 255, 3]]),
        (12, 255, VALUES),
    ],
)
def test_ids(classes, void, expected):
    labels = label_id_code(classes, void).decode('labels', VALUES)
    assert labels.dtype == np.uint8 and np.array_equal(labels, expected)


@pytest.mark.parametrize(
    ('classes', 'void', 'complaint'),
    [
        (11, None, r'drive/5\.png: label 11 \(1 pixels\); legal are 0 to 10, and 255 for unlabelled'),
        (0, None, 'classes: expected 1 to 255, got 0'),
        (256, None, 'classes: expected 1 to 255, got 256'),
        (11, -1, 'void: expected a label id, 0 to 255, got -1'),
    ],
)
def test_what_is_not_legal(classes, void, complaint):
    with pytest.raises(ValueError, match=complaint):
        label_id_code(classes, void).decode('drive/5.png', VALUES)


def test_a_png_gives_its_values_as_stored():
    palette = [(index, 0, 255 - index) for index in range(256)]
    for data in (cv2.imencode('.png', VALUES)[1].tobytes(), indexed_png(VALUES, palette)):
        assert np.array_equal(decode_label_png(np.frombuffer(data, np.uint8)), VALUES)


@pytest.mark.parametrize(('data', 'complaint'), [
    (b'', 'expected a PNG of labels, got 0 bytes that start with nothing'),
    (b'no picture', 'expected a PNG of labels, got 10 bytes that start with 6e 6f'),
    (PNG[:-12], 'cut off'),
    (PNG[:50], 'cut off'),
    (PNG[:-20] + b'x' + PNG[-19:], 'fails its checksum'),
    (PNG[:8] + PNG[33:], 'the PNG cannot be decoded'),
])  # fmt: skip
def test_what_is_no_whole_png(data, complaint):
    with pytest.raises(ValueError, match=complaint):
        decode_label_png(np.frombuffer(data, np.uint8))


def test_a_label_file_gives_its_values_as_stored(tmp_path):
    assert np.array_equal(read_label_values(write_picture(tmp_path / 'labels.png', VALUES)), VALUES)
    (tmp_path / 'cut.png').write_bytes(PNG[:-12])
    (tmp_path / 'huge.png').write_bytes(png_of_size(2**30, 2**30))
    for name, complaint in (('cut', 'cut off'), ('huge', 'not a readable image')):
        with pytest.raises(ValueError, match=rf'{name}\.png: .*{complaint}'):
            read_label_values(tmp_path / f'{name}.png')


def png_of_size(height, width):
    header = b'IHDR' + struct.pack('>II', width, height) + PNG[24:29]
    return PNG[:12] + header + struct.pack('>I', zlib.crc32(header)) + PNG[33:]
