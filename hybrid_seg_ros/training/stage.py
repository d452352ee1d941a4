"""Stage: what one kind of training adds to the loop that all share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.train_config import TrainConfig
from hybrid_seg_ros.training.weight_update import LossFunction


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
class Stage:
    """A kind of training. Parameters whose name `trained` refuses keep their values.

    `metrics` are the numbers of its evaluation that can choose the best model; `best_metric` does by default, with a
    minus in front if lower is better.
    """

    losses: LossFunction
    evaluate: EvaluateFunction
    metrics: tuple[str, ...]
    best_metric: str
    trained: Callable[[str], bool] = lambda name: True
