"""How often each class occurs in a dataset, and the weights that balance it."""

from __future__ import annotations

import numpy as np

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset


def balancing_weights(dataset: SegmentationDataset, exponent: float) -> np.ndarray:
    """Return (classes,) float32: (median frequency / frequency)^exponent; 1 for a class that never occurs.

    exponent 1 is the median frequency balancing of Eigen and Fergus (ICCV 2015); frequencies are over all pixels.
    """
    count = len(dataset.classes)
    pixels = np.zeros(count, np.int64)
    for index in range(len(dataset)):
        pixels += np.bincount(dataset[index].labels.ravel(), minlength=256)[:count]
    occurs = pixels > 0
    weights = np.ones(count)
    weights[occurs] = (np.median(pixels[occurs]) / pixels[occurs]) ** exponent
    return weights.astype(np.float32)
