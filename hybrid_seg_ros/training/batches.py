"""Batches of augmented samples: a pure function of seed and number, so that a resumed run sees the same ones.

Batches are numbered through all steps and processes, and each sample draws its random numbers by its position in that
order: two processes, or two accumulated batches, see what one batch of twice the size would.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybrid_seg_ros.data.augmentation import augment, stretch_augment
from hybrid_seg_ros.data.policy_labels import policy_labels
from hybrid_seg_ros.data.segmentation_dataset import Sample, SegmentationDataset
from hybrid_seg_ros.model_spec import WINDOW_SIZES
from hybrid_seg_ros.training.devices import Processes
from hybrid_seg_ros.training.train_config import TrainConfig

POLICY_PATCH = 16
"""Patch size that the policy networks and their labels are made for."""

CACHE_BYTES = 2 * 1024**3
"""Read samples are kept up to this size, so that a small dataset is read once and a large one fits the memory."""


@dataclass(frozen=True)
class Batch:
    """`images` (B, H, W, 3) uint8 RGB, `labels` (B, H, W) int64 and, per window size, `policy_labels` (B, h, w) int64.

    255 is ignored. `number` counts the batches of all processes since the run began; `names` are those of the samples.
    """

    number: int
    names: tuple[str, ...]
    images: Tensor
    labels: Tensor
    policy_labels: dict[int, Tensor]

    def to(self, device: torch.device) -> 'Batch':
        """Return the batch on `device`."""
        if device.type == 'cpu':
            return self
        def move(part: Tensor) -> Tensor:
            return part.pin_memory().to(device, non_blocking=True)

        windows = {window: move(targets) for window, targets in self.policy_labels.items()}
        return Batch(self.number, self.names, move(self.images), move(self.labels), windows)


def sample_indices(number: int, batch_size: int, count: int, seed: int) -> list[int]:
    """Return which samples make up a batch: each epoch is a new permutation."""
    places = (divmod(position, count) for position in range(number * batch_size, (number + 1) * batch_size))
    return [int(_permutation(seed, epoch, count)[place]) for epoch, place in places]


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def build_batch(samples: Callable[[int], Sample], count: int, number: int, config: TrainConfig, mean: tuple) -> Batch:
    """Build the batch of a number from `count` samples."""
    indices = sample_indices(number, config.batch_size, count, config.seed)
    views = [
        random_view(samples(index), np.random.default_rng((config.seed, 1, position)), config, mean)
        for position, index in enumerate(indices, number * config.batch_size)
    ]
    return Batch(
        number=number,
        names=tuple(view.name for view in views),
        images=torch.from_numpy(np.stack([view.image for view in views])),
        labels=torch.from_numpy(np.stack([view.labels for view in views]).astype(np.int64)),
        policy_labels={
            window: torch.from_numpy(np.stack([policy_labels(view.labels, window * POLICY_PATCH) for view in views]))
            .to(torch.int64)
            for window in WINDOW_SIZES
        },
    )


def random_view(sample: Sample, rng: np.random.Generator, config: TrainConfig, mean: tuple) -> Sample:
    """Return a random view of `config.crop_hw` in the way that `config.augmentation` names."""
    if config.augmentation == 'stretch':
        return stretch_augment(sample, rng, config.crop_hw)
    fit = {} if config.fit_sides is None else {'fit_sides': config.fit_sides}
    return augment(sample, rng, config.crop_hw, config.scale, tuple(round(value) for value in mean), **fit)


def batches(
    dataset: SegmentationDataset, first_step: int, end_step: int, config: TrainConfig, mean: tuple[float, float, float],
    processes: Processes, workers: int = 1,
) -> Iterator[tuple[int, list[Batch]]]:  # fmt: skip
    """Yield (step, batches of this process) for first_step .. end_step - 1, prepared by `workers` threads."""
    steps = range(first_step, end_step)
    numbers = deque(number for step in steps for number in processes.batch_numbers(step, config.accumulate))
    read = _cached(dataset)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque = deque()

        def submit() -> None:
            if numbers:
                pending.append(pool.submit(build_batch, read, len(dataset), numbers.popleft(), config, mean))

        for _ in range(max(workers, config.accumulate)):
            submit()
        for step in steps:
            ready = []
            for _ in range(config.accumulate):
                ready.append(pending.popleft().result())
                submit()
            yield step, ready


def default_workers(device: torch.device) -> int:
    """Return how many threads prepare batches: one beside training on the CPU, several where a GPU does the rest."""
    return 1 if device.type == 'cpu' else min(8, os.cpu_count() or 1)


def _cached(dataset: SegmentationDataset) -> Callable[[int], Sample]:
    cache: dict[int, Sample] = {}
    used = 0

    def read(index: int) -> Sample:
        nonlocal used
        sample = cache.get(index)
        if sample is None:
            sample = dataset[index]
            size = sample.image.nbytes + sample.labels.nbytes
            if used + size <= CACHE_BYTES:
                cache[index] = sample
                used += size
        return sample

    return read
