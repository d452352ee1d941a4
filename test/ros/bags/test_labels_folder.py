"""Ground truth from a folder: the names that are stamps, which file is whose, and a clear word for all else."""

import re

import numpy as np
import pytest
from picture_files import indexed_png, write_picture

from hybrid_seg_ros.ros.bags.ground_truth import FolderTruth, UnreadableLabelsError, parse_stamp_ns

LABELS = np.array([[0, 1, 2], [10, 11, 255]], np.uint8)
STAMP_NS = 1_700_000_000_066_666_667


@pytest.mark.parametrize(('name', 'stamp_ns'), [
    ('1700000000066666667', STAMP_NS),
    ('1700000000.066666667', STAMP_NS),
    ('1700000000_066666667', STAMP_NS),
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
    write_picture(tmp_path / 'file.png', LABELS).rename(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('not a label image')
    (tmp_path / f'._{name}').write_bytes(b'what macOS leaves beside a file')
    truth = FolderTruth(tmp_path)
    assert np.array_equal(truth.labels_at(STAMP_NS), LABELS)
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
    write_picture(tmp_path / '1.png', LABELS)
    expected = np.where(LABELS == 11, 255, LABELS)
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
    (LABELS, r'label 11 \(1 pixels\); legal are 0 to 10, and 255 for unlabelled', False),
    (np.full((2, 3), 300, np.uint16), r'label 300 \(6 pixels\)', False),
    (np.arange(18, dtype=np.uint8).reshape(2, 3, 3), 'expected one class id per pixel, got colours', True),
    (None, 'cut off', True),
])  # fmt: skip
def test_a_picture_that_is_no_label_image(tmp_path, values, complaint, is_unreadable):
    """One that cannot be read is told from one whose ids are illegal."""
    path = write_picture(tmp_path / '1.png', LABELS if values is None else values)
    if values is None:
        path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match=rf'1\.png: .*{complaint}') as raised:
        FolderTruth(tmp_path, classes=11).labels_at(1)
    assert isinstance(raised.value, UnreadableLabelsError) is is_unreadable
