"""What every dataset offers: named samples of an image and its labels, and what the labels mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hybrid_seg_ros.data.file_pairs import PairedFiles
from hybrid_seg_ros.data.image_files import DatasetError, read_image
from hybrid_seg_ros.data.label_codes import LabelCode
from hybrid_seg_ros.label_space import LabelSpace

PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Sample:
    """`image` (H, W, 3) uint8 RGB and `labels` (H, W) uint8, 255 = unlabelled."""

    name: str
    image: np.ndarray
    labels: np.ndarray


class SegmentationDataset(Protocol):
    """An indexed set of samples; `problems` says which files have no partner and were left out."""

    classes: LabelSpace
    problems: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Read one sample. Raises DatasetError that names the file."""


@dataclass(frozen=True)
class FileDataset:
    """Pairs of an image file and a label file, and how the label files' values become class ids."""

    classes: LabelSpace
    files: PairedFiles
    code: LabelCode

    @property
    def problems(self) -> tuple[str, ...]:
        """Which files have no partner."""
        return self.files.problems

    def __len__(self) -> int:
        return len(self.files.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.files.pairs[index]
        image = read_image(pair.image)
        labels = self.code.read(pair.labels)
        if image.shape[:2] != labels.shape:
            raise DatasetError(
                f'{pair.labels}: expected labels of the size of {pair.image.name}, {_size(image)}, got {_size(labels)}'
            )
        return Sample(pair.name, image, labels)


def describe_problems(problems: Sequence[str], shown: int = PROBLEMS_SHOWN) -> str:
    """Say how many problems there are, and list the first ones, one a line."""
    noun = '1 problem' if len(problems) == 1 else f'{len(problems)} problems'
    head = f'{noun}:' if len(problems) <= shown else f'{noun}, the first {shown}:'
    return '\n  '.join([head, *problems[:shown]])


def _size(picture: np.ndarray) -> str:
    return f'{picture.shape[1]}x{picture.shape[0]}'
