"""`hybrid_seg train`: train a segmenter with its auxiliary heads and policy network, resumable."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.evaluate import evaluate_model, prediction_pictures
from hybrid_seg_ros.model_spec import PRUNING_HEADS, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter, SegmenterOutput, StageOutput, to_grid
from hybrid_seg_ros.training.batches import Batch
from hybrid_seg_ros.training.devices import autocast
from hybrid_seg_ros.training.initial_model import keep_evaluation_mode
from hybrid_seg_ros.training.losses import (
    atm_loss,
    distillation_loss,
    lovasz_softmax,
    pixel_cross_entropy,
    policy_loss,
    sample_masks,
)
from hybrid_seg_ros.training.objective import EvaluationReport, Objective, policy_targets, read_class_weights
from hybrid_seg_ros.training.run_loop import run_training
from hybrid_seg_ros.training.terminal import add_run_arguments, run_command
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError


def train(
    config: TrainConfig, root: Path, run_dir: Path, until: Optional[int] = None, device: str = 'cpu',
    workers: Optional[int] = None,
) -> Optional[ModelSpec]:  # fmt: skip
    """Train a segmenter, or go on with the run in `run_dir`; see `run_training`."""
    if config.model.get('head', 'atm') not in PRUNING_HEADS:
        raise TrainConfigError(f'model.head: expected {" or ".join(PRUNING_HEADS)}, got {config.model["head"]!r}')
    teacher = None
    if config.teacher is not None:
        teacher = load_model(ModelSpec.load(config.teacher)).requires_grad_(False)
        names = open_dataset(config.dataset, root, 'train').classes.names
        if teacher.spec.classes.names != names:
            raise TrainConfigError(
                f'teacher: expected the classes of {config.dataset}, {names}, got {teacher.spec.classes.names}'
            )
        if teacher.spec.head not in PRUNING_HEADS:
            raise TrainConfigError(f'teacher: expected head {" or ".join(PRUNING_HEADS)}, got {teacher.spec.head!r}')
    objective = Objective(
        losses=functools.partial(train_losses, class_weights=read_class_weights(config, root), teacher=teacher),
        evaluate=evaluate_segmenter,
        metrics=('miou', 'pixel_accuracy'),
        best_metric='miou',
    )
    return run_training(config, root, run_dir, objective, until, device, workers)


def train_losses(
    model: HybridSegmenter, batch: Batch, step: int, config: TrainConfig, class_weights: Optional[Tensor] = None,
    teacher: Optional[HybridSegmenter] = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the weighted losses of one batch; the variants take turns, step by step."""
    torch.manual_seed(config.seed * 1_000_003 + batch.number)  # dropout as if the run had never stopped
    model.train()
    keep_evaluation_mode(model)
    variant = Variant.parse(config.variants[step % len(config.variants)])
    with autocast(batch.images.device, config.precision):
        output = model(model.normalize(batch.images), variant, step_budget(batch, model.spec, config), supervise=True)
    if class_weights is not None:
        class_weights = class_weights.to(batch.labels.device)
    losses = segmentation_losses(output, batch, config, class_weights)
    if teacher is not None:
        teacher.to(batch.images.device)
        with torch.no_grad(), autocast(batch.images.device, config.precision):
            taught = final_scores(teacher(teacher.normalize(batch.images), Variant(), teacher.spec.budget))
        student = final_scores(output)
        taught = F.interpolate(taught, size=student.shape[2:], mode='bilinear', align_corners=False)
        losses['teacher'] = config.distillation_weight * distillation_loss(student, taught)
    if config.policy_weight and output.policy_logits is not None:
        targets = policy_targets(batch, model.spec, config, class_weights)
        losses['policy'] = config.policy_weight * policy_loss(output.policy_logits, targets)
    return losses


def step_budget(batch: Batch, spec: ModelSpec, config: TrainConfig) -> TokenBudget:
    """Return how many tokens the step of a batch merges and keeps: the model's budget, or drawn at random."""
    rng = np.random.default_rng((config.seed, 2, batch.number))
    budget = spec.budget
    if config.entering_share is not None:
        grid_hw = spec.backbone.grid_hw(tuple(batch.labels.shape[1:]))
        windows = random_windows(rng, grid_hw, spec.window_sizes, rng.uniform(*config.entering_share))
        budget = dataclasses.replace(budget, merged_windows=windows)
    if config.keep_share is not None and spec.auxiliary_layers:
        keep = tuple(float(rng.uniform(*config.keep_share)) for _ in spec.auxiliary_layers)
        budget = dataclasses.replace(budget, keep=keep)
    return budget


def random_windows(
    rng: np.random.Generator, grid_hw: tuple[int, int], sizes: Sequence[int], entering_share: float
) -> dict[int, int]:  # fmt: skip
    """Draw how many windows of each size merge so that about `entering_share` of the grid's tokens are left."""
    surplus = (1 - entering_share) * grid_hw[0] * grid_hw[1]
    counts = {}
    for window in sorted(sizes, reverse=True):
        whole = (grid_hw[0] // window) * (grid_hw[1] // window)
        whole -= sum(count * (larger // window) ** 2 for larger, count in counts.items())
        # large windows take up to half of what is to go; the smallest take the rest
        share = 1.0 if window == min(sizes) else rng.uniform(0.0, 0.5)
        counts[window] = min(whole, round(share * surplus / (window**2 - 1)))
        surplus -= counts[window] * (window**2 - 1)
    return counts


def segmentation_losses(
    output: SegmenterOutput, batch: Batch, config: TrainConfig, class_weights: Optional[Tensor] = None
) -> dict[str, Tensor]:
    """Return the weighted losses: of each head on the patch grid, and of the refined masks where there are any.

    Auxiliary heads also learn from what the last head says of the same cells (`distillation_weight`).
    """
    stride, size_hw = config.loss_stride, tuple(batch.labels.shape[1:])
    first = np.random.default_rng((config.seed, 3, batch.number)).integers(stride, size=2).tolist()
    labels = batch.labels[:, first[0] :: stride, first[1] :: stride]
    last = output.stages[-1]
    grids = {stage.layer: grid_masks(output, stage) for stage in output.stages}
    losses: dict[str, Tensor] = {}
    for stage in output.stages:
        weight = 1.0 if stage is last else config.auxiliary_weight
        has_queries = config.model.get('head' if stage is last else 'auxiliary_head', 'atm') == 'atm'
        masks = sample_masks(grids[stage.layer], size_hw, first, stride)
        loss = mask_loss(stage.class_logits, masks, labels, config, class_weights, has_queries)
        if stage is not last and config.distillation_weight:
            teacher = class_scores(last.class_logits, grids[last.layer]).detach()
            student = class_scores(stage.class_logits, grids[stage.layer])
            loss = loss + config.distillation_weight * distillation_loss(student, teacher)
        losses[f'layer{stage.layer}'] = weight * loss
    if output.refined_logits is not None:
        masks = sample_masks(output.refined_logits, size_hw, first, stride)
        losses['refined'] = mask_loss(last.class_logits, masks, labels, config, class_weights, has_queries)
    if config.lovasz_weight:
        losses['lovasz'] = config.lovasz_weight * lovasz_softmax(class_scores(last.class_logits, masks), labels)
    return losses


def final_scores(output: SegmenterOutput) -> Tensor:
    """Return `class_scores` of the last head (B, C, h, w), refined where the model refines its masks."""
    last = output.stages[-1]
    masks = grid_masks(output, last) if output.refined_logits is None else output.refined_logits
    return class_scores(last.class_logits, masks)


def grid_masks(output: SegmenterOutput, stage: StageOutput) -> Tensor:
    """Return a stage's mask logits on the patch grid: (B, classes, gh, gw)."""
    return to_grid(output.layout.unmerge(stage.mask_logits.transpose(1, 2)), output.layout.grid_hw).float()


def mask_loss(
    class_logits: Tensor, masks: Tensor, labels: Tensor, config: TrainConfig, class_weights: Optional[Tensor],
    has_queries: bool,
) -> Tensor:  # fmt: skip
    """ATM loss, and per-pixel cross-entropy of the class scores: class logits (B, C, 2), masks (B, C, h, w)."""
    loss = masks.sum() * 0.0
    if config.atm_weight:
        loss = config.atm_weight * atm_loss(class_logits, masks, labels, has_queries).total
    if config.pixel_weight:
        scores = class_scores(class_logits, masks)
        loss = loss + config.pixel_weight * pixel_cross_entropy(scores, labels, class_weights)
    return loss


def class_scores(class_logits: Tensor, masks: Tensor) -> Tensor:
    """Return log(p_c sigmoid(m_c)) (B, C, h, w): the logarithm of the score that decides."""
    present = AtmHead.class_probability(class_logits).clamp(min=1e-6)
    return present.log()[:, :, None, None] + F.logsigmoid(masks)


def evaluate_segmenter(
    model: HybridSegmenter, spec: ModelSpec, val_set: SegmentationDataset, config: TrainConfig, device: torch.device
) -> EvaluationReport:
    """Return mIoU and pixel accuracy, in per cent, of `config.evaluate_variant`, and some pictures."""
    variant = Variant.parse(config.evaluate_variant)
    result = evaluate_model(model, spec, val_set, variant, config.precision, device)
    numbers = {'variant': str(variant), 'miou': result.miou, 'pixel_accuracy': result.pixel_accuracy}
    return EvaluationReport(numbers, prediction_pictures(model, spec, val_set, variant, config.precision, device))


add_arguments = add_run_arguments


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return run_command(args, train)
