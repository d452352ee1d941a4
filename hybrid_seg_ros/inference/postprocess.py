"""Class scores on a grid to a label map and its confidence: undo the geometry."""

from __future__ import annotations

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
    labels, confidence = np.empty(output_hw, np.uint8), np.empty(output_hw, np.float32)
    step = max(1, SCORES_AT_ONCE // (len(prediction.class_mix) * output_hw[1]))
    for start in range(0, output_hw[0], step):
        band = slice(start, min(start + step, output_hw[0]))
        masks = sample_grid(prediction, rows[band], columns)
        scores = masks.reshape(len(masks), -1).T @ prediction.class_mix.T  # (pixels, classes)
        best = scores.argmax(1)[:, None]
        labels[band] = best.reshape(-1, output_hw[1])
        confidence[band] = np.take_along_axis(scores, best, 1).reshape(-1, output_hw[1])
    return labels, np.clip(confidence, 0.0, 1.0)


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


def sample_grid(prediction: GridPrediction, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return scores (S, H, W) float32 where interpolation matrices (H, h) and (W, w) sample the grid.

    Of 'mask_logits' they are SegViT's masks, the sigmoid of the logits there, which are still to be mixed.
    """
    scores = (rows @ prediction.scores) @ columns.T
    if prediction.class_mix is not None:
        scores *= 0.5
        np.tanh(scores, out=scores)  # the sigmoid, which does not overflow this way
        scores += 1.0
        scores *= 0.5
    return scores


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(0))
    powers /= powers.sum(0)
    return powers
