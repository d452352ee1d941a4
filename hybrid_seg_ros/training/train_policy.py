"""`hybrid_seg train-policy`: train the policy network alone, as CTS does; everything else keeps its weights.

Source: CTS (Lu et al., CVPR 2023), section 3.1: cross-entropy on windows, 1 = one class only, some ignored.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Optional

import torch
from torch import Tensor

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.policy_accuracy import policy_accuracy
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.batches import Batch
from hybrid_seg_ros.training.devices import autocast
from hybrid_seg_ros.training.initial_model import keep_evaluation_mode
from hybrid_seg_ros.training.losses import distillation_loss, policy_loss
from hybrid_seg_ros.training.objective import EvaluationReport, Objective, policy_targets, read_class_weights
from hybrid_seg_ros.training.run_loop import run_training
from hybrid_seg_ros.training.terminal import add_run_arguments, run_command
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError


def train_policy(
    config: TrainConfig, root: Path, run_dir: Path, until: Optional[int] = None, device: str = 'cpu',
    workers: Optional[int] = None,
) -> Optional[ModelSpec]:  # fmt: skip
    """Train the policy network of a model, or go on with the run in `run_dir`; see `run_training`."""
    if config.model.get('policy') == 'none':
        raise TrainConfigError('model.policy: expected a policy network to train, got none')
    teacher = None
    if config.teacher is not None:
        teacher = load_model(ModelSpec.load(config.teacher)).requires_grad_(False)
        if teacher.policy is None:
            raise TrainConfigError(f'teacher: expected a model with a policy network, {config.teacher} has none')
    class_weights = None if config.policy_target == 'single_class' else read_class_weights(config, root)
    objective = Objective(
        losses=functools.partial(policy_losses, class_weights=class_weights, teacher=teacher),
        evaluate=evaluate_policy,
        metrics=('accuracy', 'wrongly_merged'),
        best_metric='-wrongly_merged',
        trained=lambda name: name.startswith('policy.'),
    )
    return run_training(config, root, run_dir, objective, until, device, workers)


def policy_losses(
    model: HybridSegmenter, batch: Batch, step: int, config: TrainConfig, class_weights: Optional[Tensor] = None,
    teacher: Optional[HybridSegmenter] = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the loss of one batch: of its labels, and of what the `teacher`'s policy network says of its windows."""
    model.eval()
    model.policy.train()
    keep_evaluation_mode(model)
    with autocast(batch.images.device, config.precision):
        logits = model.window_logits(model.normalize(batch.images))
    losses = {'policy': policy_loss(logits, policy_targets(batch, model.spec, config, class_weights))}
    if teacher is not None:
        teacher.to(batch.images.device)
        with torch.no_grad(), autocast(batch.images.device, config.precision):
            taught = teacher.window_logits(teacher.normalize(batch.images))
        terms = []
        for window in (window for window in logits if window in taught and batch.policy_labels[window].numel()):
            rows, columns = batch.policy_labels[window].shape[1:]
            terms.append(distillation_loss(*(part[window].float()[:, :, :rows, :columns] for part in (logits, taught))))
        losses['distillation'] = config.distillation_weight * torch.stack(terms).sum()
    return losses


def evaluate_policy(
    model: HybridSegmenter, spec: ModelSpec, val_set: SegmentationDataset, config: TrainConfig, device: torch.device
) -> EvaluationReport:
    """Return accuracy and the share of wrongly merged windows, in per cent."""
    result = policy_accuracy(model, spec, val_set)
    return EvaluationReport({'accuracy': result.accuracy, 'wrongly_merged': result.wrongly_merged})


add_arguments = add_run_arguments


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return run_command(args, train_policy)
