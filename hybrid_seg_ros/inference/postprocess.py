"""Class scores on a grid to a label map and its confidence: undo the geometry."""

from __future__ import annotations

from typing import Optional

import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction
from hybrid_seg_ros.inference.interpolated_argmax import interpolated_argmax
from hybrid_seg_ros.inference.interpolation import (
    InterpolationAxis,
    cell_centres,
    interpolation_axis,
    interpolation_matrix,
    neighbours,
    pixel_positions,
)
from hybrid_seg_ros.inference.mask_scores import argmax_in_bands, mixed_masks
from hybrid_seg_ros.inference.preprocess import FrameGeometry


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


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(0))
    powers /= powers.sum(0)
    return powers
