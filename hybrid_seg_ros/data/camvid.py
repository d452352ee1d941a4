"""CamVid street video, 360x480, 11 classes (Brostow, Fauqueur, Cipolla 2009; the SegNet tutorial's version)."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np

from hybrid_seg_ros.data.segmentation_dataset import DatasetError, Sample, paired_files, read_image, read_labels
from hybrid_seg_ros.label_space import UNLABELLED, LabelSpace

VOID = 11
"""The label files' id of pixels without a label."""

CAMVID_CLASSES = LabelSpace(
    names=(
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign symbol', 'fence', 'car', 'pedestrian', 'bicyclist',
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip


class CamVid:
    """`root/SPLIT/images/*.jpg|png` and `root/SPLIT/labels/*.png`, splits train and val (and test, where there)."""

    classes = CAMVID_CLASSES

    def __init__(self, root: Union[str, Path], split: str) -> None:
        folder = Path(root) / split
        if not folder.is_dir():
            raise DatasetError(f'CamVid: expected {folder} with images/ and labels/; no such folder')
        self._pairs = paired_files(folder / 'images', folder / 'labels')

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self._pairs[index]
        image = read_image(image_path)
        labels = read_labels(label_path, image.shape[:2])
        if labels.max() > VOID:
            raise DatasetError(f'{label_path}: expected labels 0 to {VOID} ({VOID} = void), got {labels.max()}')
        return Sample(image_path.stem, image, np.where(labels == VOID, np.uint8(UNLABELLED), labels))
