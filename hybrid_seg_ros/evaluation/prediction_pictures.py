"""Pictures of what a model says: image, ground truth and prediction side by side."""

from __future__ import annotations

import numpy as np
import torch

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.visualization import draw_overlay, fit_image


def prediction_pictures(
    model: HybridSegmenter, spec: ModelSpec, dataset: SegmentationDataset, variant: Variant, precision: str,
    device: torch.device, count: int = 4, height: int = 240,
) -> tuple[tuple[str, np.ndarray], ...]:  # fmt: skip
    """Return (name, picture) of `count` samples spread over the dataset, (height, W, 3) uint8 RGB.

    Left to right: the image, the labels over it, the prediction over it. The model is cast to `precision`.
    """
    pipeline = SegmentationPipeline(spec, TorchBackend(model, device, precision), 'pytorch', precision, variant)
    indices = sorted(set(np.linspace(0, len(dataset) - 1, num=min(count, len(dataset))).astype(int).tolist()))
    pictures = []
    for sample in (dataset[index] for index in indices):
        predicted = pipeline(sample.image).labels
        overlays = [draw_overlay(sample.image, labels, spec.classes) for labels in (sample.labels, predicted)]
        row = np.concatenate([sample.image, *overlays], axis=1)
        pictures.append((sample.name, fit_image(row, (height, round(row.shape[1] * height / row.shape[0])))))
    return tuple(pictures)
