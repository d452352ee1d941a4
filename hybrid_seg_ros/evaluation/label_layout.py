"""Labels as the network sees them: laid out at its input size, and one label per cell of the patch grid."""

from __future__ import annotations

import numpy as np

from hybrid_seg_ros.label_space import UNLABELLED


def fit_labels(labels: np.ndarray, content_hw: tuple[int, int], padded_hw: tuple[int, int]) -> np.ndarray:
    """Return labels (H, W) uint8 at `padded_hw`: nearest sample in the top left `content_hw`, unlabelled elsewhere."""
    rows = (np.arange(content_hw[0]) + 0.5) * labels.shape[0] / content_hw[0]
    columns = (np.arange(content_hw[1]) + 0.5) * labels.shape[1] / content_hw[1]
    canvas = np.full(padded_hw, UNLABELLED, np.uint8)
    canvas[: content_hw[0], : content_hw[1]] = labels[np.ix_(rows.astype(int), columns.astype(int))]
    return canvas


def majority_labels(labels: np.ndarray, cell_px: int, num_classes: int) -> np.ndarray:
    """Return the most frequent class of each cell, (H // cell_px, W // cell_px) uint8; the lower id wins a tie.

    `labels` (H, W) uint8, sides divisible by `cell_px`. A cell with more unlabelled than labelled pixels is 255.
    """
    height, width = labels.shape
    if height % cell_px or width % cell_px:
        raise ValueError(f'expected labels whose sides are multiples of {cell_px}, got {labels.shape}')
    blocks = labels.reshape(height // cell_px, cell_px, width // cell_px, cell_px)
    counts = np.stack([(blocks == index).sum((1, 3)) for index in range(num_classes)])  # (classes, gh, gw)
    mostly_labelled = 2 * counts.sum(0) >= cell_px**2
    return np.where(mostly_labelled, counts.argmax(0), UNLABELLED).astype(np.uint8)
