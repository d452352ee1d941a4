"""How well a policy network finds the windows whose patches may share a token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hybrid_seg_ros.data.policy_labels import DO_NOT_SHARE, IGNORE, SHARE, policy_labels
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.inference.preprocess import fit_geometry, preprocess
from hybrid_seg_ros.label_space import UNLABELLED
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.merge_policy import scores_on_host
from hybrid_seg_ros.network.segmenter import HybridSegmenter, pad_to_multiple
from hybrid_seg_ros.network.token_merging import choose_windows, count_merged_windows
from hybrid_seg_ros.segmentation import TokenReport


@dataclass(frozen=True)
class PolicyAccuracy:
    """Per cent: `accuracy` of windows, of all sizes, judged right by the sign of their score, and `wrongly_merged`.

    The latter is the share of windows that hold several classes among those that the model's budget merges.
    """

    accuracy: float
    wrongly_merged: float


@torch.no_grad()
def policy_accuracy(model: HybridSegmenter, spec: ModelSpec, dataset: SegmentationDataset) -> PolicyAccuracy:
    """Judge the policy network of a model on the windows of a dataset, whole frames at the spec's input size.

    So it is for a model with a sliding window, too: its crops are not cut here.
    """
    right = judged = wrong = merged = 0
    patch = spec.backbone.patch_size
    for index in range(len(dataset)):
        sample = dataset[index]
        geometry = fit_geometry(sample.labels.shape, spec)
        image = torch.from_numpy(preprocess(sample.image, geometry, spec))[None].to(model.mean.device)
        padded = pad_to_multiple(model.normalize(image), patch)
        grid_hw = (padded.shape[2] // patch, padded.shape[3] // patch)
        scores = scores_on_host(model.window_logits(padded), grid_hw)
        choice = choose_windows(scores, count_merged_windows(grid_hw, spec.budget.windows), grid_hw)
        labels = fit_labels(sample.labels, geometry.content_hw, padded.shape[2:])
        for window, each in scores.items():
            targets = policy_labels(labels, window * patch)
            known = targets != IGNORE
            right += int(((each[0] > 0) == (targets == SHARE))[known].sum())
            judged += int(known.sum())
        wrong_here, merged_here = _count_wrong(choice.window_size()[0], labels, patch)
        wrong, merged = wrong + wrong_here, merged + merged_here
    return PolicyAccuracy(100.0 * right / max(1, judged), 100.0 * wrong / max(1, merged))


def count_wrong_merges(tokens: TokenReport, labels: np.ndarray, spec: ModelSpec) -> tuple[int, int]:
    """Return how many windows share a token although they hold several classes, and how many share one at all.

    `tokens` are those of a whole frame, `labels` (H, W) uint8 at its own size. A window of one class beside unlabelled
    pixels is no error on the border.
    """
    patch = spec.backbone.patch_size
    padded_hw = (tokens.grid_hw[0] * patch, tokens.grid_hw[1] * patch)
    laid = fit_labels(labels, fit_geometry(labels.shape, spec).content_hw, padded_hw)
    return _count_wrong(tokens.window_size, laid, patch)


def _count_wrong(window_size: np.ndarray, labels: np.ndarray, patch: int) -> tuple[int, int]:
    wrong = merged = 0
    for window in np.unique(window_size[window_size > 1]).tolist():
        targets = policy_labels(labels, window * patch)
        rows, columns = targets.shape
        shares = window_size[: rows * window : window, : columns * window : window] == window
        wrong += int((targets[shares] == DO_NOT_SHARE).sum())
        merged += int(shares.sum())
    return wrong, merged


def fit_labels(labels: np.ndarray, content_hw: tuple[int, int], padded_hw: tuple[int, int]) -> np.ndarray:
    """Return labels (H, W) uint8 at `padded_hw`: nearest sample in the top left `content_hw`, unlabelled elsewhere."""
    rows = (np.arange(content_hw[0]) + 0.5) * labels.shape[0] / content_hw[0]
    columns = (np.arange(content_hw[1]) + 0.5) * labels.shape[1] / content_hw[1]
    canvas = np.full(padded_hw, UNLABELLED, np.uint8)
    canvas[: content_hw[0], : content_hw[1]] = labels[np.ix_(rows.astype(int), columns.astype(int))]
    return canvas
