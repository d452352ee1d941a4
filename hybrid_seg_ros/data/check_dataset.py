"""`hybrid_seg check-dataset`: reads every image and label file before training does, and names what is wrong."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.registry import add_dataset_arguments, open_dataset
from hybrid_seg_ros.data.segmentation_dataset import FileDataset, SegmentationDataset, describe_problems
from hybrid_seg_ros.label_space import UNLABELLED

_READ_AHEAD = 4
"""Samples per thread that may wait to be counted."""
_MASKS = 'values of 255 are unlabelled, and no class: masks of 0 and 255 need "labels: colors" in classes.yaml'


@dataclass(frozen=True)
class DatasetReport:
    """What reading a whole dataset showed.

    `class_pixels` (classes,) int64 and `unlabelled_pixels` are over the readable samples. `problems` has one line per
    unreadable sample, and per file without a partner; it names the file, what was expected and what there is; a set
    without a single labelled pixel is one, too. `absent` are the classes that never occur.
    """

    samples: int
    class_pixels: np.ndarray
    unlabelled_pixels: int
    problems: tuple[str, ...]
    absent: tuple[str, ...] = ()

    def untaught(self) -> Optional[str]:
        """Say what a model trained on this set cannot learn: classes that never occur, or to tell two apart."""
        taught = np.count_nonzero(self.class_pixels)
        if not taught or (taught > 1 and not self.absent):
            return None
        problems = ['expected two classes to tell apart, got one'] if taught == 1 else []
        if self.absent:
            problems.append(f'classes that never occur, and cannot be learned: {", ".join(self.absent)}')
        if taught == 1 and self.unlabelled_pixels:
            problems.append(_MASKS)
        return '; '.join(problems)

    def raise_for_problems(self, what: str = 'dataset') -> None:
        """Raise DatasetError that lists the first problems and how many there are."""
        if self.problems:
            raise DatasetError(f'{what}: {describe_problems(self.problems)}')


def check_dataset(
    dataset: SegmentationDataset, threads: Optional[int] = None, description: str = 'check', progress: bool = True
) -> DatasetReport:
    """Read every sample, in threads (default: one per core), and count the pixels of each class."""
    pixels = np.zeros(256, np.int64)
    problems = list(dataset.problems)
    threads = threads or len(os.sched_getaffinity(0))
    outcomes = _read_all(dataset, threads)
    hidden = None if progress else True  # None: where there is no terminal
    for outcome in tqdm(outcomes, description, len(dataset), leave=False, unit='image', disable=hidden):
        if isinstance(outcome, str):
            problems.append(outcome)
        else:
            pixels += outcome
    class_pixels, unlabelled = pixels[: len(dataset.classes)], int(pixels[UNLABELLED])
    if unlabelled and not class_pixels.any():
        problems.append(f'expected labelled pixels, got none in {len(dataset)} images; {_MASKS}')
    absent = tuple(name for name, count in zip(dataset.classes.names, class_pixels) if not count)
    return DatasetReport(len(dataset), class_pixels, unlabelled, tuple(problems), absent)


def _read_all(dataset: SegmentationDataset, threads: int) -> Iterator[Union[np.ndarray, str]]:
    """Yield, per sample and in order, the pixels of each label (256,), or what is wrong."""

    def read(index: int) -> Union[np.ndarray, str]:
        try:
            return np.bincount(dataset[index].labels.ravel(), minlength=256)
        except DatasetError as error:
            return str(error)

    with ThreadPoolExecutor(threads) as pool:
        step = threads * _READ_AHEAD  # in pieces, so that Ctrl-C does not wait for the whole dataset
        for start in range(0, len(dataset), step):
            yield from pool.map(read, range(start, min(start + step, len(dataset))))


def balancing_weights(dataset: SegmentationDataset, exponent: float) -> np.ndarray:
    """Read the whole dataset and return its `median_frequency_weights`. Raises DatasetError if it has problems."""
    report = check_dataset(dataset, description='count classes')
    report.raise_for_problems()
    return median_frequency_weights(report.class_pixels, exponent)


def median_frequency_weights(class_pixels: np.ndarray, exponent: float) -> np.ndarray:
    """Return (classes,) float32: (median frequency / frequency)^exponent; 1 for a class that never occurs.

    exponent 1 is the median frequency balancing of Eigen and Fergus (ICCV 2015); frequencies are over all pixels.
    `class_pixels` is what `check_dataset` counts.
    """
    occurs = class_pixels > 0
    weights = np.ones(len(class_pixels))
    if occurs.any():
        weights[occurs] = (np.median(class_pixels[occurs]) / class_pixels[occurs]) ** exponent
    return weights.astype(np.float32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_dataset_arguments(parser)
    parser.add_argument('--splits', nargs='+', default=['train', 'val'], help='default: train val')
    parser.add_argument('--threads', type=int, help='default: one per core')
    parser.add_argument('--problems', type=int, default=10, help='how many to list per split (%(default)s)')


def run(args: argparse.Namespace) -> int:
    """Run the command; 1 if there are problems."""
    found, opened = 0, {}
    for split in args.splits:
        try:
            dataset = open_dataset(args.dataset, args.root, split, allow_unpaired=True)
        except DatasetError as error:
            print(f'{split}: {error}')
            found += 1
            continue
        opened[split] = dataset
        report = check_dataset(dataset, args.threads, f'check {split}')
        if split.startswith('train') and report.untaught():
            report = dataclasses.replace(report, problems=(*report.problems, report.untaught()))
        print('\n'.join(_lines(split, dataset, report, args.problems)))
        found += len(report.problems)
    for shared in _shared_images(opened):
        print(shared)
        found += 1
    print(f'problems: {found}' if found else 'no problems')
    return 1 if found else 0


def _lines(split: str, dataset: FileDataset, report: DatasetReport, shown: int) -> Iterator[str]:
    """Write a split's report: frames, share of each class among the labelled pixels, unlabelled share, problems."""
    labelled = int(report.class_pixels.sum())
    total = labelled + report.unlabelled_pixels
    yield f'{split}: {report.samples} images, {total} pixels'
    for name, pixels in zip(dataset.classes.names, report.class_pixels):
        share = f'{100 * pixels / labelled:8.3f} %' if pixels else '  absent'
        yield f'  {name:<24}{pixels:>14}{share}'
    if total:
        share = f'{100 * report.unlabelled_pixels / total:8.3f} % of all'
        yield f'  {"unlabelled":<24}{report.unlabelled_pixels:>14}{share}'
    if report.problems:
        yield f'  {describe_problems(report.problems, shown)}'


def _shared_images(opened: dict[str, FileDataset]) -> Iterator[str]:
    """Name images that stand in two splits: a model is not to be evaluated on what it was trained on."""
    files = {split: {os.path.realpath(pair.image) for pair in dataset.files.pairs} for split, dataset in opened.items()}
    splits = list(files)
    for position, first in enumerate(splits):
        for second in splits[position + 1 :]:
            both = sorted(files[first] & files[second])
            if both:
                yield f'{first} and {second} share {len(both)} images, such as {both[0]}'
