"""ADE20K, the 150 classes of the scene parsing benchmark (Zhou et al., CVPR 2017), as it is published."""

from __future__ import annotations

from pathlib import Path

from hybrid_seg_ros.data.ade20k_classes import ADE20K_CLASSES
from hybrid_seg_ros.data.file_pairs import FoundFiles, pair_files
from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.label_codes import IdCode
from hybrid_seg_ros.data.segmentation_dataset import FileDataset
from hybrid_seg_ros.label_space import UNLABELLED

_FOLDERS = {'train': 'training', 'val': 'validation', 'training': 'training', 'validation': 'validation'}
_ARCHIVE_FOLDER = 'ADEChallengeData2016'

ADE20K_CODE = IdCode(
    {0: UNLABELLED, **{value: value - 1 for value in range(1, len(ADE20K_CLASSES) + 1)}},
    hint=' (255 would mean that 1 was taken off already: the annotations are read as they are published)',
)
"""0 is 'other' and counts as unlabelled; 1 to 150 are the classes 0 to 149."""


def open_ade20k(root: Path, split: str) -> FileDataset:
    """Open `root/images/training|validation/*.jpg` and `root/annotations/training|validation/*.png`."""
    if split not in _FOLDERS:
        raise DatasetError(f'unknown split {split!r} of ADE20K; legal are {", ".join(_FOLDERS)}')
    if not (root / 'images').is_dir() and (root / _ARCHIVE_FOLDER).is_dir():
        root = root / _ARCHIVE_FOLDER
    images, labels = (root / kind / _FOLDERS[split] for kind in ('images', 'annotations'))
    return FileDataset(ADE20K_CLASSES, pair_files(FoundFiles.images(images), FoundFiles.labels(labels)), ADE20K_CODE)
