"""SegViT's class scores: the sigmoid of upsampled mask logits, mixed; in bands of rows, which bounds memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction

SCORES_AT_ONCE = 1 << 21  # of a band: 8 MB each time they are held


def argmax_in_bands(
    scores_of_rows: Callable[[slice], np.ndarray], output_hw: tuple[int, int], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (H, W) uint8 and the highest score (H, W) float32; `scores_of_rows` gives (rows, W, classes)."""
    labels, highest = np.empty(output_hw, np.uint8), np.empty(output_hw, np.float32)
    step = max(1, SCORES_AT_ONCE // (classes * output_hw[1]))
    for start in range(0, output_hw[0], step):
        band = slice(start, min(start + step, output_hw[0]))
        scores = scores_of_rows(band)
        best = scores.argmax(2)
        labels[band] = best
        highest[band] = np.take_along_axis(scores, best[:, :, None], 2)[:, :, 0]
    return labels, highest


def mixed_masks(prediction: GridPrediction, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return class scores (H, W, classes) float32 where interpolation matrices (H, h) and (W, w) sample the grid."""
    masks = (rows @ prediction.scores) @ columns.T  # (S, H, W)
    masks *= 0.5
    np.tanh(masks, out=masks)  # the sigmoid, which does not overflow this way
    masks += 1.0
    masks *= 0.5
    scores = masks.reshape(len(masks), -1).T @ prediction.class_mix.T
    return scores.reshape(len(rows), len(columns), -1)
