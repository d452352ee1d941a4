"""`hybrid_seg evaluate`: mIoU, token counts and GFLOPs of a model on a dataset."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.data.registry import DATASETS, open_dataset
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.metrics import ConfusionMatrix
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline


@dataclass(frozen=True)
class EvaluationResult:
    """Results over a dataset; per cent. `tokens_mean` is per stage, in the order of TokenReport.stages."""

    miou: float
    pixel_accuracy: float
    iou_per_class: dict[str, Optional[float]]
    tokens_mean: dict[str, float]
    frames: int


def evaluate(
    pipeline: SegmentationPipeline, dataset: SegmentationDataset, limit: Optional[int] = None
) -> EvaluationResult:
    """Run the pipeline over a dataset (or its first `limit` samples) and compare labels at the image's size."""
    matrix = ConfusionMatrix(len(dataset.classes))
    tokens: dict[str, list[int]] = {}
    frames = min(len(dataset), limit or len(dataset))
    for index in tqdm(range(frames), desc=f'evaluate {pipeline.variant}', unit='image', leave=False):
        sample = dataset[index]
        result = pipeline(sample.image)
        matrix.update(result.labels, sample.labels)
        for stage, count in result.tokens.stages.items():
            tokens.setdefault(stage, []).append(count)
    ious = matrix.iou_per_class()
    return EvaluationResult(
        miou=matrix.miou(),
        pixel_accuracy=matrix.pixel_accuracy(),
        iou_per_class={n: None if math.isnan(v) else float(v) for n, v in zip(dataset.classes.names, ious)},
        tokens_mean={stage: float(np.mean(counts)) for stage, counts in tokens.items()},
        frames=frames,
    )
