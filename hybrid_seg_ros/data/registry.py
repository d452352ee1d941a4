"""Maps a dataset's name to the function that opens it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Union

from hybrid_seg_ros.data.ade20k import open_ade20k
from hybrid_seg_ros.data.camvid import open_camvid
from hybrid_seg_ros.data.cityscapes import open_cityscapes
from hybrid_seg_ros.data.folder import open_folder
from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.segmentation_dataset import FileDataset, describe_problems

DATASETS: dict[str, Callable[[Path, str], FileDataset]] = {
    'ade20k': open_ade20k,
    'camvid': open_camvid,
    'cityscapes': open_cityscapes,
    'folder': open_folder,
}


def open_dataset(name: str, root: Union[str, Path], split: str, *, allow_unpaired: bool = False) -> FileDataset:
    """Open a split of a dataset.

    Raises ValueError that lists the legal names, or DatasetError: no such split, or files without a partner, unless
    `allow_unpaired`; then they are left out, and the dataset's `problems` name them.
    """
    if name not in DATASETS:
        raise ValueError(f'unknown dataset {name!r}; legal are {", ".join(DATASETS)}')
    if not Path(root).is_dir():
        raise DatasetError(f'{root}: expected the folder of dataset {name}; no such folder')
    dataset = DATASETS[name](Path(root), split)
    if dataset.problems and not allow_unpaired:
        raise DatasetError(f'{name}, split {split!r}: {describe_problems(dataset.problems)}')
    return dataset


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --dataset and --root."""
    parser.add_argument('--dataset', choices=sorted(DATASETS), default='camvid', help='default %(default)s')
    parser.add_argument('--root', type=Path, required=True, help='folder of the dataset (docs/datasets.md)')
