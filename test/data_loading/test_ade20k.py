"""ADE20K's published layout: 0 counts as unlabelled, 1 to 150 become 0 to 149."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_files import write_pair

from hybrid_seg_ros.data.ade20k import ADE20K_CLASSES
from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.policy_labels import policy_labels
from hybrid_seg_ros.data.registry import open_dataset

REAL_SAMPLE = Path(__file__).parents[3] / 'shared' / 'ade20k_sample'


def write_ade20k(root: Path, annotation: np.ndarray) -> Path:
    for folder, stem in (('training', 'ADE_train_00000001'), ('validation', 'ADE_val_00000001')):
        write_pair(root / f'images/{folder}/{stem}.jpg', root / f'annotations/{folder}/{stem}.png', annotation)
    return root


@pytest.fixture
def annotation():
    values = np.arange(160, dtype=np.uint8).reshape(10, 16)
    return np.where(values > 150, 0, values).astype(np.uint8)


@pytest.mark.parametrize('split, name, above', [
    ('train', 'ADE_train_00000001', ''), ('training', 'ADE_train_00000001', 'ADEChallengeData2016'),
    ('val', 'ADE_val_00000001', 'ADEChallengeData2016'), ('validation', 'ADE_val_00000001', ''),
])  # fmt: skip
def test_layout(tmp_path, annotation, split, name, above):
    write_ade20k(tmp_path / above, annotation)
    dataset = open_dataset('ade20k', tmp_path, split)
    assert len(dataset) == 1 and len(dataset.classes) == 150
    sample = dataset[0]
    assert sample.name == name and sample.image.shape == (10, 16, 3)
    assert np.array_equal(sample.labels, np.where(annotation == 0, 255, annotation - 1))


def test_names_and_colors_of_the_benchmark():
    named = {0: 'wall', 1: 'building', 2: 'sky', 12: 'person', 20: 'car', 58: 'screen door', 130: 'screen', 149: 'flag'}
    assert {index: ADE20K_CLASSES.names[index] for index in named} == named
    assert ADE20K_CLASSES.palette[2] == (6, 230, 230) and ADE20K_CLASSES.palette[149] == (92, 0, 255)


@pytest.mark.parametrize('value', [151, 255])
def test_shifted_annotations_are_refused(tmp_path, annotation, value):
    annotation[0, 0] = value
    dataset = open_dataset('ade20k', write_ade20k(tmp_path, annotation), 'val')
    with pytest.raises(DatasetError, match=rf'0001\.png: label {value} \(1 pixels\); legal are 1 to 150, and 0 for '
                                           r'unlabelled .*taken off already'):  # fmt: skip
        dataset[0]


@pytest.mark.parametrize('split', ['test', 'Train'])
def test_unknown_split_lists_the_legal_ones(tmp_path, annotation, split):
    with pytest.raises(DatasetError, match='legal are train, val, training, validation'):
        open_dataset('ade20k', write_ade20k(tmp_path, annotation), split)


@pytest.mark.parametrize('missing', ['images/training', 'annotations/training'])
def test_missing_folder_is_named(tmp_path, annotation, missing):
    write_ade20k(tmp_path, annotation)
    (tmp_path / missing).rename(tmp_path / 'away')
    with pytest.raises(DatasetError, match=f'{missing}: no such folder'):
        open_dataset('ade20k', tmp_path, 'train')


def test_policy_labels_are_those_of_the_published_annotation(tmp_path):
    """'Other' beside a class makes a window mixed; a window of 'other' alone is one value; 255 is never a class."""
    annotation = np.ones((96, 96), np.uint8)
    annotation[40, 40] = 0  # the middle window: class 1 and other
    annotation[:32, 32:64] = 0  # all other
    annotation[70, 40] = 150  # two classes
    annotation[5, 70] = 0  # one class and other, on the border
    dataset = open_dataset('ade20k', write_ade20k(tmp_path, annotation), 'val')
    assert policy_labels(dataset[0].labels).tolist() == [[1, 1, 255], [1, 0, 1], [1, 0, 1]]


@pytest.mark.skipif(not REAL_SAMPLE.is_dir(), reason='the real sample is not beside this checkout')
def test_real_sample():
    names = [line.split('\t')[4] for line in (REAL_SAMPLE / 'objectInfo150.txt').read_text().splitlines()[1:]]
    assert ADE20K_CLASSES.names == tuple(name.split(',')[0].strip() for name in names)
    dataset = open_dataset('ade20k', REAL_SAMPLE, 'val')
    assert [dataset[index].labels.shape for index in range(len(dataset))] == [(512, 683), (364, 500), (300, 400)]
    assert 'building' in {ADE20K_CLASSES.names[label] for label in np.unique(dataset[0].labels) if label != 255}
