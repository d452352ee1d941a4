"""What every dataset offers: named samples of an image and its labels, and what the labels mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Union

import cv2
import numpy as np

from hybrid_seg_ros.label_space import LabelSpace


class DatasetError(ValueError):
    """A dataset that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Sample:
    """`image` (H, W, 3) uint8 RGB and `labels` (H, W) uint8, 255 = unlabelled."""

    name: str
    image: np.ndarray
    labels: np.ndarray


class SegmentationDataset(Protocol):
    """An indexed set of samples."""

    classes: LabelSpace

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Read one sample."""


def paired_files(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Return (image, label) files, sorted by name. Raises DatasetError that names missing folders or pairs."""
    for folder in (images, labels):
        if not folder.is_dir():
            raise DatasetError(f'{folder}: no such folder')
    found = sorted(path for path in images.iterdir() if path.suffix.lower() in ('.jpg', '.jpeg', '.png'))
    if not found:
        raise DatasetError(f'{images}: no .jpg or .png images')
    pairs = [(path, labels / f'{path.stem}.png') for path in found]
    missing = [str(label) for _, label in pairs if not label.is_file()]
    if missing:
        raise DatasetError(f'{len(missing)} images have no label file, such as {missing[0]}')
    return pairs


def read_image(path: Union[str, Path]) -> np.ndarray:
    """Read an image file as RGB (H, W, 3) uint8."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f'{path}: not a readable image')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_labels(path: Union[str, Path], size_hw: tuple[int, int]) -> np.ndarray:
    """Read a single-channel label file (H, W) uint8 of the image's size."""
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels is None:
        raise DatasetError(f'{path}: not a readable image')
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.shape != tuple(size_hw):
        raise DatasetError(f'{path}: expected {tuple(size_hw)} uint8 labels, got {labels.shape} {labels.dtype}')
    return labels
