"""Values and colours of label files become class ids; what has no meaning is named with what has."""

from __future__ import annotations

import numpy as np
import pytest
from picture_files import indexed_png, write_picture

from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.label_codes import ColorCode, IdCode, label_id_code, pack_colors, ranges
from hybrid_seg_ros.label_space import LabelSpace

THREE = LabelSpace(names=('road', 'grass', 'sky'), palette=((90, 90, 90), (0, 200, 0), (1, 2, 250)))
BLACK = (0, 0, 0)


@pytest.mark.parametrize(
    'code, values, labels',
    [
        (IdCode.plain(3), [[0, 1, 2, 255]], [[0, 1, 2, 255]]),
        (IdCode.plain(3, unlabelled=(7,)), [[0, 7, 2, 255]], [[0, 255, 2, 255]]),
        (IdCode.plain(3, unlabelled=(0,)), [[0, 1, 2, 2]], [[255, 1, 2, 2]]),
        (IdCode.plain(255), [[254, 255]], [[254, 255]]),
        (IdCode({0: 255, 1: 0, 2: 1}), [[0, 1, 2]], [[255, 0, 1]]),
    ],
)
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_ids(tmp_path, code, values, labels, dtype):
    read = code.read(write_picture(tmp_path / 'labels.png', np.array(values, dtype)))
    assert read.dtype == np.uint8 and read.tolist() == labels


@pytest.mark.parametrize(
    'code, values, complaint',
    [
        (IdCode.plain(3), [[0, 3, 3]], r'l\.png: label 3 \(2 pixels\); legal are 0 to 2, and 255 for unlabelled'),
        (IdCode.plain(3, (7,)), [[9, 8, 0]], r'label 8, 9 \(2 pixels\); legal are 0 to 2, and 7 and 255 for'),
        (IdCode.plain(3), [[256, 0, 65535]], r'label 256, 65535 \(2 pixels\)'),
        (IdCode({0: 255, 1: 0}), [[255, 2]], r'label 2, 255 \(2 pixels\); legal are 1, and 0 for unlabelled$'),
        (IdCode.plain(3, hint='; so'), [[*range(3, 12)]], r'label 3, 4, 5, 6, 7 and 4 others \(9 pixels\).*; so$'),
    ],
)
def test_an_id_that_means_nothing_is_named(tmp_path, code, values, complaint):
    path = write_picture(tmp_path / 'l.png', np.array(values, np.uint16))
    with pytest.raises(DatasetError, match=complaint):
        code.read(path)


def test_colors(tmp_path):
    code = ColorCode.of_palette(THREE, unlabelled=[BLACK])
    labels = np.random.default_rng(0).integers(0, 4, (9, 14), np.uint8)
    colors = [*THREE.palette, BLACK]
    path = write_picture(tmp_path / 'rgb.png', np.array(colors, np.uint8)[labels])
    expected = np.where(labels == 3, 255, labels)
    assert np.array_equal(code.read(path), expected)
    path.write_bytes(indexed_png((3 - labels).astype(np.uint8), colors[::-1]))
    assert np.array_equal(code.read(path), expected), 'the colour counts, not the index'


def test_a_color_that_means_nothing_is_named(tmp_path):
    picture = np.array([[(90, 90, 90), (90, 90, 91), (0, 0, 0), (0, 0, 0)]], np.uint8)
    with pytest.raises(DatasetError, match=r'c\.png: colour \(0, 0, 0\), \(90, 90, 91\) \(3 pixels\); legal are '
                                           r'\(90, 90, 90\), \(0, 200, 0\), \(1, 2, 250\); so$'):  # fmt: skip
        ColorCode.of_palette(THREE, hint='; so').read(write_picture(tmp_path / 'c.png', picture))


def test_values_are_no_colors(tmp_path):
    with pytest.raises(DatasetError, match='expected colours, got one value per pixel'):
        ColorCode.of_palette(THREE).read(write_picture(tmp_path / 'grey.png', np.zeros((2, 3), np.uint8)))


def test_packed_colors_differ():
    assert pack_colors(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [255, 255, 255]], np.uint8)).tolist() == [
        65536, 256, 1, 2**24 - 1]  # fmt: skip


@pytest.mark.parametrize(
    'values, text',
    [([3], '3'), ([0, 1, 2], '0 to 2'), ([255, 0, 1], '0 to 1 and 255'), ([0, 2, 4], '0, 2 and 4'), ([], '')],
)
def test_ranges(values, text):
    assert ranges(values) == text


@pytest.mark.parametrize(
    ('classes', 'void', 'expected'),
    [
        (None, None, [[0, 10, 11, 255, 3]]),
        (12, None, [[0, 10, 11, 255, 3]]),
        (11, 11, [[0, 10, 255, 255, 3]]),
        (None, 0, [[255, 10, 11, 255, 3]]),
        (12, 255, [[0, 10, 11, 255, 3]]),
        (12, 65535, [[0, 10, 11, 255, 3]]),
    ],
)
def test_ids_of_no_data_set(classes, void, expected):
    values = np.array([[0, 10, 11, 255 if void != 65535 else 65535, 3]], np.uint16)
    labels = label_id_code(classes, void).decode('labels', values)
    assert labels.dtype == np.uint8 and labels.tolist() == expected


@pytest.mark.parametrize(
    ('classes', 'void', 'complaint'),
    [
        (11, None, r'drive/5\.png: label 11 \(1 pixels\); legal are 0 to 10, and 255 for unlabelled; --void'),
        (0, None, 'classes: expected 1 to 255, got 0'),
        (256, None, 'classes: expected 1 to 255, got 256'),
        (11, -1, 'void: expected a label id, 0 to 65535, got -1'),
        (11, 65536, 'void: expected a label id, 0 to 65535, got 65536'),
    ],
)
def test_what_is_not_legal_of_no_data_set(classes, void, complaint):
    with pytest.raises(ValueError, match=complaint):
        label_id_code(classes, void).decode('drive/5.png', np.array([[0, 10, 11]], np.uint8))
