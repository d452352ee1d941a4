"""Cityscapes, fine annotations, 19 classes (Cordts et al., CVPR 2016)."""

from __future__ import annotations

from pathlib import Path

from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.label_codes import IdCode
from hybrid_seg_ros.data.segmentation_dataset import FileDataset, FoundFiles, pair_files
from hybrid_seg_ros.label_space import UNLABELLED, LabelSpace

CITYSCAPES_CLASSES = LabelSpace(
    names=(
        'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign', 'vegetation',
        'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle',
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
        (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip

TRAIN_IDS = IdCode.plain(len(CITYSCAPES_CLASSES))
"""The code of `*_labelTrainIds.png`."""

_LABEL_IDS_OF_CLASSES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LABEL_IDS = IdCode({
    **dict.fromkeys((*range(34), UNLABELLED), UNLABELLED),
    **{value: class_id for class_id, value in enumerate(_LABEL_IDS_OF_CLASSES)},
})  # fmt: skip
"""The code of `*_labelIds.png`: of the 34 ids, 15 are not evaluated and count as unlabelled."""


def open_cityscapes(root: Path, split: str) -> FileDataset:
    """Open `root/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `root/gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png`.

    The download has no labelTrainIds, its toolbox makes them; if there are none at all, labelIds are read instead.
    """
    for kind in ('leftImg8bit', 'gtFine'):
        if not (root / kind / split).is_dir():
            raise DatasetError(f'Cityscapes: expected {root / kind / split}, with a folder per city; no such folder')
    images = FoundFiles.images(root / 'leftImg8bit' / split, '_leftImg8bit')
    labels, code = FoundFiles.labels(root / 'gtFine' / split, '_gtFine_labelTrainIds'), TRAIN_IDS
    if not labels.by_name:
        labels, code = FoundFiles.labels(root / 'gtFine' / split, '_gtFine_labelIds'), LABEL_IDS
    return FileDataset(CITYSCAPES_CLASSES, pair_files(images, labels), code)
