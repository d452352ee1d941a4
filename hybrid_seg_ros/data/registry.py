"""Maps a dataset's name to its class."""

from __future__ import annotations

from pathlib import Path
from typing import Union

from hybrid_seg_ros.data.camvid import CamVid
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset

DATASETS = {'camvid': CamVid}


def open_dataset(name: str, root: Union[str, Path], split: str) -> SegmentationDataset:
    """Open a dataset. Raises ValueError that lists the legal names, or DatasetError."""
    if name not in DATASETS:
        raise ValueError(f'unknown dataset {name!r}; legal are {", ".join(DATASETS)}')
    return DATASETS[name](root, split)
