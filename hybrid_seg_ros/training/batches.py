"""Batches of augmented samples: a pure function of seed and step, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from hybrid_seg_ros.data.augmentation import augment
from hybrid_seg_ros.data.policy_labels import policy_labels
from hybrid_seg_ros.data.segmentation_dataset import Sample, SegmentationDataset
from hybrid_seg_ros.training.train_config import TrainConfig

Batch = tuple[Tensor, Tensor, Tensor]


def sample_indices(step: int, batch_size: int, count: int, seed: int) -> list[int]:
    """Return which samples make up the batch of a step: each epoch is a new permutation."""
    indices = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, count)
        indices.append(int(np.random.default_rng((seed, epoch)).permutation(count)[place]))
    return indices


def build_batch(samples: Callable[[int], Sample], count: int, step: int, config: TrainConfig, mean: tuple) -> Batch:
    """Return images (B, H, W, 3) uint8, labels (B, H, W) int64 and policy labels (B, h, w) int64."""
    pad_color = tuple(round(value) for value in mean)
    rng = np.random.default_rng((config.seed, 1, step))
    views = [
        augment(samples(index), rng, config.crop_hw, config.scale, pad_color)
        for index in sample_indices(step, config.batch_size, count, config.seed)
    ]
    images = torch.from_numpy(np.stack([view.image for view in views]))
    labels = torch.from_numpy(np.stack([view.labels for view in views]).astype(np.int64))
    policy = torch.from_numpy(np.stack([policy_labels(view.labels) for view in views]).astype(np.int64))
    return images, labels, policy


def batches(
    dataset: SegmentationDataset, first_step: int, end_step: int, config: TrainConfig, mean: tuple[float, float, float]
) -> Iterator[tuple[int, Batch]]:
    """Yield (step, batch) for first_step .. end_step - 1, prepared one ahead in a thread; images are read once."""
    if first_step >= end_step:
        return
    cache: dict[int, Sample] = {}

    def read(index: int) -> Sample:
        if index not in cache:
            cache[index] = dataset[index]
        return cache[index]

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(build_batch, read, len(dataset), first_step, config, mean)
        for step in range(first_step, end_step):
            batch = pending.result()
            if step + 1 < end_step:
                pending = pool.submit(build_batch, read, len(dataset), step + 1, config, mean)
            yield step, batch
