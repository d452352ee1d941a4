"""Class scores on a grid to a label map and its confidence: undo the geometry."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction
from hybrid_seg_ros.inference.preprocess import FrameGeometry


def postprocess(
    prediction: GridPrediction, geometry: FrameGeometry, output_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (H, W) uint8 and confidence (H, W) float32 in [0, 1] for an output of `output_hw`.

    Each output pixel samples the grid once, bilinearly (align_corners=False), through the geometry. Where image and
    network input have the same size this is the official "upsample, then argmax". Classes are visited one at a
    time, so that classes x height x width is never in memory at once.
    """
    sizes = [
        (output, grid, content / output / prediction.cell_px)
        for output, grid, content in zip(output_hw, prediction.scores.shape[1:], geometry.content_hw)
    ]
    if not isinstance(prediction.scores, np.ndarray):  # on a GPU, and so are the labels made of them
        return prediction.scores.label_map(*(_neighbours(*size) for size in sizes))
    rows, columns = (interpolation_matrix(*size) for size in sizes)
    if prediction.kind == 'mask_logits':
        scores = _mixed_masks(prediction, rows, columns)
        return scores.argmax(0).astype(np.uint8), np.clip(scores.max(0), 0.0, 1.0)
    best, labels = None, np.zeros(output_hw, np.uint8)
    total = np.zeros(output_hw, np.float32) if prediction.kind == 'logits' else None
    highest = prediction.scores.max()  # interpolation cannot exceed it, so that exp stays in range
    partial = rows @ prediction.scores  # (S, H, gw)
    for index in range(len(partial)):
        scores = partial[index] @ columns.T
        if total is not None:
            total += np.exp(scores - highest)
        if best is None:
            best = scores
        else:
            np.copyto(labels, np.uint8(index), where=scores > best)
            np.maximum(best, scores, out=best)
    confidence = best if total is None else np.exp(best - highest) / np.maximum(total, np.finfo(np.float32).tiny)
    return labels, np.clip(confidence, 0.0, 1.0)


def upsample_scores(prediction: GridPrediction, size_hw: tuple[int, int]) -> np.ndarray:
    """Return class scores (classes, H, W) float32 at the network's own resolution, all of them in memory."""
    rows, columns = (
        interpolation_matrix(side, grid, 1.0 / prediction.cell_px)
        for side, grid in zip(size_hw, prediction.scores.shape[1:])
    )
    if prediction.kind == 'mask_logits':
        return _mixed_masks(prediction, rows, columns)
    return (rows @ prediction.scores) @ columns.T


@lru_cache(maxsize=16)
def interpolation_matrix(output: int, grid: int, cells_per_pixel: float) -> np.ndarray:
    """Return (output, grid) float32 that samples a row of cells bilinearly, clamped at the ends.

    Output pixel i lies at (i + 0.5) * cells_per_pixel - 0.5 cells.
    """
    low, weight = _neighbours(output, grid, cells_per_pixel)
    matrix = np.zeros((output, grid))
    np.add.at(matrix, (np.arange(output), low), 1 - weight)
    np.add.at(matrix, (np.arange(output), np.minimum(low + 1, grid - 1)), weight)
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=16)
def _neighbours(output: int, grid: int, cells_per_pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """Return for each output pixel the cell at or before it, and the weight of the next one."""
    position = np.clip((np.arange(output) + 0.5) * cells_per_pixel - 0.5, 0, grid - 1)
    low = np.minimum(position.astype(np.int64), max(grid - 2, 0))
    return low, position - low


def _mixed_masks(prediction: GridPrediction, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """SegViT's form: sigmoid of the upsampled mask logits, mixed into class scores (classes, H, W)."""
    logits = (rows @ prediction.scores) @ columns.T  # (S, H, W)
    masks = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return np.tensordot(prediction.class_mix, masks, axes=1).astype(np.float32)
