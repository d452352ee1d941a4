"""Datasets are opened by name; a wrong name, a wrong root and files without a partner are errors."""

from __future__ import annotations

import numpy as np
import pytest
from camvid_folder import write_camvid_folder
from picture_files import write_picture

from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.registry import DATASETS, open_dataset


def test_unknown_name_lists_the_legal_ones(tmp_path):
    with pytest.raises(ValueError, match=r"unknown dataset 'voc'; legal are ade20k, camvid, cityscapes, folder"):
        open_dataset('voc', tmp_path, 'train')


@pytest.mark.parametrize('name', DATASETS)
def test_a_root_that_is_missing_or_empty_is_an_error(tmp_path, name):
    with pytest.raises(DatasetError, match=f'nowhere: expected the folder of dataset {name}; no such folder'):
        open_dataset(name, tmp_path / 'nowhere', 'train')
    with pytest.raises(DatasetError, match="no such (file|folder)|no split 'train'"):
        open_dataset(name, tmp_path, 'train')


def test_files_without_a_partner_stop_training_but_not_a_check(tmp_path):
    root = write_camvid_folder(tmp_path, train=3, val=1)
    write_picture(root / 'train/images/more.png', np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"camvid, split 'train': 1 problem:\n  .*more\.png: no label file"):
        open_dataset('camvid', root, 'train')
    dataset = open_dataset('camvid', root, 'train', allow_unpaired=True)
    assert len(dataset) == 3 and len(dataset.problems) == 1


def test_many_problems_are_counted_and_the_first_named(tmp_path):
    root = write_camvid_folder(tmp_path, train=1, val=1)
    for index in range(12):
        write_picture(root / f'train/images/more{index:02}.png', np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DatasetError, match='12 problems, the first 10:') as error:
        open_dataset('camvid', root, 'train')
    assert 'more09' in str(error.value) and 'more10' not in str(error.value)
