"""Weights that balance the classes of a dataset, from how often each occurs."""

from __future__ import annotations

import numpy as np

from hybrid_seg_ros.data.check_dataset import check_dataset
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset


def balancing_weights(dataset: SegmentationDataset, exponent: float) -> np.ndarray:
    """Read the whole dataset and return its `median_frequency_weights`. Raises DatasetError if it has problems."""
    report = check_dataset(dataset, description='count classes')
    report.raise_for_problems()
    return median_frequency_weights(report.class_pixels, exponent)


def median_frequency_weights(class_pixels: np.ndarray, exponent: float) -> np.ndarray:
    """Return (classes,) float32: (median frequency / frequency)^exponent; 1 for a class that never occurs.

    exponent 1 is the median frequency balancing of Eigen and Fergus (ICCV 2015); frequencies are over all pixels.
    `class_pixels` is what `check_dataset` counts.
    """
    occurs = class_pixels > 0
    weights = np.ones(len(class_pixels))
    if occurs.any():
        weights[occurs] = (np.median(class_pixels[occurs]) / class_pixels[occurs]) ** exponent
    return weights.astype(np.float32)
