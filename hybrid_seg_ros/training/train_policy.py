"""`hybrid_seg train-policy`: train the policy network alone, as CTS does; everything else keeps its weights.

Source: CTS (Lu et al., CVPR 2023), section 3.1: cross-entropy on windows, 1 = one class only, some ignored.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from hybrid_seg_ros.data.policy_labels import DO_NOT_SHARE, IGNORE, SHARE, policy_labels
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.inference.preprocess import fit_geometry, preprocess
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.merge_policy import PolicyNetwork
from hybrid_seg_ros.network.segmenter import HybridSegmenter, pad_to_multiple
from hybrid_seg_ros.network.token_merging import count_merged_windows
from hybrid_seg_ros.training.batches import Batch
from hybrid_seg_ros.training.losses import policy_loss
from hybrid_seg_ros.training.run_loop import add_run_arguments, run_command, run_training
from hybrid_seg_ros.training.schedule import update_weights
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError


def train_policy(config: TrainConfig, root: Path, run_dir: Path, until: Optional[int] = None) -> Optional[ModelSpec]:
    """Train the policy network of a model, or go on with the run in `run_dir`; see `run_training`.

    With `stem: shared_trunk` the stages that the segmenter uses too are left as they are.
    """
    if config.model.get('policy') == 'none':
        raise TrainConfigError('model.policy: expected a policy network to train, got none')
    shared = ('policy.backbone.conv_stem.', 'policy.backbone.bn1.')
    shared += tuple(f'policy.backbone.blocks.{stage}.' for stage in range(5))
    frozen = shared if config.model.get('stem') == 'shared_trunk' else ()
    return run_training(
        config, root, run_dir, train_step, evaluate_policy,
        trained=lambda name: name.startswith('policy.') and not name.startswith(frozen), until=until,
    )  # fmt: skip


def train_step(
    model: HybridSegmenter, optimizer: torch.optim.Optimizer, batch: Batch, step: int, config: TrainConfig
) -> dict[str, float]:
    """Do one optimiser step; returns the loss. Raises FloatingPointError before the weights are touched."""
    model.eval()  # batch norm keeps its ImageNet statistics
    images, _, targets = batch
    with torch.autocast('cpu', torch.bfloat16, enabled=config.precision == 'bfloat16'):
        logits = model.policy(model.normalize(images))
    return update_weights(model, optimizer, {'policy': policy_loss(logits, targets)}, step, config)


@torch.no_grad()
def evaluate_policy(
    model: HybridSegmenter, spec: ModelSpec, val_set: SegmentationDataset, config: TrainConfig
) -> dict[str, Any]:
    """Return, in per cent, the share of windows judged right, and of merged windows that hold several classes."""
    right = judged = wrong = merged = 0
    patch = spec.backbone.patch_size
    for index in range(len(val_set)):
        sample = val_set[index]
        geometry = fit_geometry(sample.labels.shape, spec)
        image = torch.from_numpy(preprocess(sample.image, geometry, spec))[None]
        padded = pad_to_multiple(model.normalize(image), patch)
        grid_hw = (padded.shape[2] // patch, padded.shape[3] // patch)
        scores = PolicyNetwork.scores(model.policy(padded), grid_hw)[0].numpy()
        targets = policy_labels(_fit_labels(sample.labels, geometry.content_hw, padded.shape[2:]), 2 * patch)
        known = targets != IGNORE
        right += int(((scores > 0) == (targets == SHARE))[known].sum())
        judged += int(known.sum())
        count = count_merged_windows(grid_hw, spec.budget.merged_windows)
        chosen = np.argsort(-scores, axis=None)[:count]
        wrong += int((targets.ravel()[chosen] == DO_NOT_SHARE).sum())
        merged += count
    return {'accuracy': 100.0 * right / max(1, judged), 'wrongly_merged': 100.0 * wrong / max(1, merged)}


def _fit_labels(labels: np.ndarray, content_hw: tuple[int, int], padded_hw: tuple[int, int]) -> np.ndarray:
    """Lay the labels out as the network sees the image; padding is unlabelled."""
    rows = (np.arange(content_hw[0]) + 0.5) * labels.shape[0] / content_hw[0]
    columns = (np.arange(content_hw[1]) + 0.5) * labels.shape[1] / content_hw[1]
    canvas = np.full(padded_hw, IGNORE, np.uint8)
    canvas[: content_hw[0], : content_hw[1]] = labels[np.ix_(rows.astype(int), columns.astype(int))]
    return canvas


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return run_command(args, train_policy)
