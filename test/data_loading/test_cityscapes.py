"""Cityscapes' layout, with labelTrainIds or as it is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_files import write_pair, write_picture

from hybrid_seg_ros.data.cityscapes import CITYSCAPES_CLASSES
from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.registry import open_dataset

FRAMES = (('aachen', 'aachen_000000_000019'), ('ulm', 'ulm_000000_000019'))


def write_cityscapes(root: Path, kind: str, values: np.ndarray) -> Path:
    for city, stem in FRAMES:
        label_path = root / f'gtFine/train/{city}/{stem}_gtFine_{kind}.png'
        write_pair(root / f'leftImg8bit/train/{city}/{stem}_leftImg8bit.png', label_path, values)
        write_picture(label_path.with_name(f'{stem}_gtFine_color.png'), np.zeros((*values.shape, 3), np.uint8))
        write_picture(label_path.with_name(f'{stem}_gtFine_instanceIds.png'), np.zeros(values.shape, np.uint16))
    return root


def test_train_ids(tmp_path):
    values = np.array([[*range(19), 255]], np.uint8)
    dataset = open_dataset('cityscapes', write_cityscapes(tmp_path, 'labelTrainIds', values), 'train')
    assert [dataset[index].name for index in range(len(dataset))] == [f'{city}/{stem}' for city, stem in FRAMES]
    assert np.array_equal(dataset[0].labels, values)
    assert dataset.classes.names[:3] == ('road', 'sidewalk', 'building') and len(dataset.classes) == 19


def test_label_ids_become_train_ids(tmp_path):
    """The ids of labels.py of the toolbox; those that are not evaluated are unlabelled."""
    evaluated = {
        7: 'road', 8: 'sidewalk', 11: 'building', 12: 'wall', 13: 'fence', 17: 'pole', 19: 'traffic light',
        20: 'traffic sign', 21: 'vegetation', 22: 'terrain', 23: 'sky', 24: 'person', 25: 'rider', 26: 'car',
        27: 'truck', 28: 'bus', 31: 'train', 32: 'motorcycle', 33: 'bicycle',
    }  # fmt: skip
    values = np.array([[*range(34), 255]], np.uint8)
    labels = open_dataset('cityscapes', write_cityscapes(tmp_path, 'labelIds', values), 'train')[0].labels[0]
    names = {int(value): CITYSCAPES_CLASSES.names[label] for value, label in zip(values[0], labels) if label != 255}
    assert names == evaluated


def test_train_ids_win_and_then_none_may_lack(tmp_path):
    write_cityscapes(tmp_path, 'labelIds', np.full((2, 3), 7, np.uint8))
    write_picture(tmp_path / 'gtFine/train/ulm/ulm_000000_000019_gtFine_labelTrainIds.png', np.ones((2, 3), np.uint8))
    with pytest.raises(DatasetError, match=r'aachen_000000_000019_leftImg8bit\.png: no label file .*_labelTrainIds'):
        open_dataset('cityscapes', tmp_path, 'train')


@pytest.mark.parametrize('kind, value', [('labelTrainIds', 19), ('labelIds', 34)])
def test_value_out_of_range_is_named(tmp_path, kind, value):
    values = np.full((2, 3), value, np.uint8)
    dataset = open_dataset('cityscapes', write_cityscapes(tmp_path, kind, values), 'train')
    with pytest.raises(DatasetError, match=rf'_gtFine_{kind}\.png: label {value} \(6 pixels\)'):
        dataset[0]


@pytest.mark.parametrize('split, missing', [('val', 'leftImg8bit/val'), ('train', 'gtFine/train')])
def test_missing_folder_is_named(tmp_path, split, missing):
    write_cityscapes(tmp_path, 'labelIds', np.zeros((2, 3), np.uint8))
    if split == 'train':
        (tmp_path / 'gtFine').rename(tmp_path / 'away')
    with pytest.raises(DatasetError, match=f'{missing}, with a folder per city; no such folder'):
        open_dataset('cityscapes', tmp_path, split)
