"""`hybrid_seg train-policy`: train the policy network alone, as CTS does; everything else keeps its weights.

Source: CTS (Lu et al., CVPR 2023), section 3.1: cross-entropy on windows, 1 = one class only, some ignored.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Optional

import torch

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.policy_accuracy import policy_accuracy
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.segmenter import HybridSegmenter
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
    return run_training(
        config, root, run_dir, train_step, evaluate_policy,
        trained=lambda name: name.startswith('policy.'), until=until,
    )  # fmt: skip


def train_step(
    model: HybridSegmenter, optimizer: torch.optim.Optimizer, batch: Batch, step: int, config: TrainConfig
) -> dict[str, float]:
    """Do one optimiser step; returns the loss. Raises FloatingPointError before the weights are touched."""
    model.eval()  # batch norm keeps its ImageNet statistics
    images, _, targets = batch
    with torch.autocast('cpu', torch.bfloat16, enabled=config.precision == 'bfloat16'):
        logits = model.window_logits(model.normalize(images))
    return update_weights(model, optimizer, {'policy': policy_loss(logits, targets)}, step, config)


def evaluate_policy(
    model: HybridSegmenter, spec: ModelSpec, val_set: SegmentationDataset, config: TrainConfig
) -> dict[str, Any]:
    """Return accuracy and the share of wrongly merged windows, in per cent."""
    result = policy_accuracy(model, spec, val_set)
    return {'accuracy': result.accuracy, 'wrongly_merged': result.wrongly_merged}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return run_command(args, train_policy)
