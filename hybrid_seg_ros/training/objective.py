"""What one kind of training minimises, how its models are evaluated, and which are kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from hybrid_seg_ros.data.check_dataset import balancing_weights
from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.batches import POLICY_PATCH, Batch
from hybrid_seg_ros.training.losses import kept_share
from hybrid_seg_ros.training.run_folder import RunLog, metric_value
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError
from hybrid_seg_ros.training.weight_update import LossFunction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationReport:
    """`numbers` go to evaluations.jsonl; `pictures`, named (H, W, 3) uint8 RGB, to TensorBoard."""

    numbers: dict[str, Any]
    pictures: tuple[tuple[str, np.ndarray], ...] = ()


EvaluateFunction = Callable[
    [HybridSegmenter, ModelSpec, SegmentationDataset, TrainConfig, torch.device], EvaluationReport
]
"""Evaluates a model on the validation set, on the device; may change the model."""


@dataclass(frozen=True)
class Objective:
    """What one kind of training minimises and is judged by. Parameters whose name `trained` refuses keep their values.

    `metrics` are the numbers of its evaluation that can choose the best model; `best_metric` does by default, with a
    minus in front if lower is better.
    """

    losses: LossFunction
    evaluate: EvaluateFunction
    metrics: tuple[str, ...]
    best_metric: str
    trained: Callable[[str], bool] = lambda name: True

    def metric(self, config: TrainConfig) -> str:
        """Return the number that chooses the best model. Raises TrainConfigError if a configuration names none."""
        metric = config.best_metric or self.best_metric
        if metric.removeprefix('-') not in self.metrics:
            raise TrainConfigError(
                f'best_metric: unknown {metric!r}; legal are {", ".join(self.metrics)}, with a minus if lower is better'
            )
        return metric


def read_class_weights(config: TrainConfig, root: Path) -> Optional[Tensor]:
    """Return the weights (classes,) of `class_balance`, for which the whole training set is read; None without it."""
    if not config.class_balance:
        return None
    return torch.from_numpy(balancing_weights(open_dataset(config.dataset, root, 'train'), config.class_balance))


def policy_targets(
    batch: Batch, spec: ModelSpec, config: TrainConfig, class_weights: Optional[Tensor]
) -> Mapping[int, Tensor]:
    """Return what the policy network is to say of each window, as `config.policy_target` names it."""
    if config.policy_target == 'single_class':
        return batch.policy_labels
    return kept_share(batch.labels, len(spec.classes), spec.window_sizes, POLICY_PATCH, class_weights)


@dataclass(frozen=True)
class KeptModels:
    """Evaluates averaged weights and keeps them in the run's folder as `model.yaml`, and the best as `best.yaml`."""

    run_dir: Path
    spec: ModelSpec
    config: TrainConfig
    objective: Objective
    val_set: SegmentationDataset
    device: torch.device
    run_log: RunLog

    def evaluate(self, average: dict[str, Tensor], done: int) -> None:
        """Write and evaluate the weights after `done` steps, unless that is done already.

        The line of evaluations.jsonl comes last, so that a run killed in between does all of it again.
        """
        if self.run_log.is_evaluated(done):
            return
        model = self._model(average)
        written = save_model(model, self.run_dir / 'model.yaml')
        report = self.objective.evaluate(model.to(self.device).eval(), written, self.val_set, self.config, self.device)
        metric = self.objective.metric(self.config)
        value, best = metric_value(report.numbers, metric), self.run_log.best(metric)
        if not math.isnan(value) and (best is None or value > best):
            save_model(self._model(average), self.run_dir / 'best.yaml')
            log.info('best so far by %s: kept as %s', metric, self.run_dir / 'best.yaml')
        self.run_log.evaluation(done, report.numbers, report.pictures)

    def _model(self, average: dict[str, Tensor]) -> HybridSegmenter:
        model = HybridSegmenter(self.spec)
        model.load_state_dict(average)
        return model
