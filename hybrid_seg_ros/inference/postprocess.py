"""Class scores on a grid to a label map and its confidence: undo the geometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import numpy as np

from hybrid_seg_ros.inference.interpolation import (
    InterpolationAxis,
    cell_centres,
    interpolated_argmax,
    interpolation_axis,
    interpolation_matrix,
    neighbours,
    pixel_positions,
)
from hybrid_seg_ros.inference.preprocess import FrameGeometry
from hybrid_seg_ros.segmentation import GridPrediction

SCORES_AT_ONCE = 1 << 21
"""Of a band of rows where every class is held at every pixel: 8 MB each time they are held."""


def postprocess(
    prediction: GridPrediction, geometry: FrameGeometry, output_hw: tuple[int, int], with_confidence: bool = True
) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """Return labels (H, W) uint8 and confidence (H, W) float32 in [0, 1] for an output of `output_hw`.

    Without `with_confidence` it may be None, where leaving it out saves time.

    Each output pixel samples the grid once, bilinearly (align_corners=False), through the geometry. Where image and
    network input have the same size this is the official "upsample, then argmax". Confidence: see `label_knots`; of
    'mask_logits' it is the winner's score.
    """
    knots = [cell_centres(cells, prediction.cell_px) for cells in prediction.scores.shape[1:]]
    sizes = list(zip(knots, geometry.content_hw, output_hw))
    if not isinstance(prediction.scores, np.ndarray):  # probabilities on a GPU, which makes the same of them
        samplings = (neighbours(at, pixel_positions(output, content)) for at, content, output in sizes)
        return prediction.scores.label_map(*((each.low, each.weight) for each in samplings))
    if prediction.class_mix is None:
        rows, columns = (interpolation_axis(*size) for size in sizes)
        return label_knots(prediction.scores, prediction.kind, rows, columns, with_confidence)
    rows, columns = (interpolation_matrix(at, pixel_positions(output, content)) for at, content, output in sizes)
    labels, highest = argmax_in_bands(
        lambda band: mixed_masks(prediction, rows[band], columns), output_hw, len(prediction.class_mix)
    )
    return labels, np.clip(highest, 0.0, 1.0)


def label_knots(
    scores: np.ndarray, kind: str, rows: InterpolationAxis, columns: InterpolationAxis, with_confidence: bool = True
) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """Return labels (H, W) uint8 and confidence (H, W) float32 in [0, 1] from scores (S, h, w) at the axes' knots.

    The labels are the argmax of the interpolated scores. Confidence is the winner's interpolated score; of 'logits',
    the winner's softmax, which is taken at the knots and interpolated like the scores: a softmax per pixel would need
    every class at every pixel.
    """
    values = _softmax(scores) if kind == 'logits' and with_confidence else None
    labels, confidence = interpolated_argmax(scores, rows, columns, values, with_confidence)
    if confidence is None:
        return labels, None
    np.maximum(confidence, 0.0, out=confidence)
    np.minimum(confidence, 1.0, out=confidence)
    return labels, confidence


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
    """Return SegViT's class scores (H, W, classes) float32: the sigmoid of upsampled mask logits, mixed.

    Interpolation matrices (H, h) and (W, w) sample the grid.
    """
    masks = (rows @ prediction.scores) @ columns.T  # (S, H, W)
    masks *= 0.5
    np.tanh(masks, out=masks)  # the sigmoid, which does not overflow this way
    masks += 1.0
    masks *= 0.5
    scores = masks.reshape(len(masks), -1).T @ prediction.class_mix.T
    return scores.reshape(len(rows), len(columns), -1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(0))
    powers /= powers.sum(0)
    return powers
