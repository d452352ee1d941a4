"""Which images the figures show: by name, spread over the data, or by the tokens that they need."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from hybrid_seg_ros.data.segmentation_dataset import FileDataset, SegmentationDataset
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline

APART = 20
"""Easy images, and hard ones, are at least this part of the data set apart: frames of a video resemble each other."""
NAMES_LISTED = 10


def easy_and_hard(
    pipeline: SegmentationPipeline, dataset: SegmentationDataset, frames: int, count: int
) -> tuple[list[int], list[int]]:
    """Return the indices of at most `count` easy images, and of as many hard ones, of the first `frames`.

    Easy are those with the fewest tokens left in the end, hard those with the most; the first are the extremes. No
    image is both: of a single one it cannot be said.
    """
    ranked = rank_by_tokens(pipeline, dataset, frames)
    half, apart = max(1, frames // 2), max(1, frames // APART)
    return choose_apart(ranked[:half], count, apart), choose_apart(ranked[half:][::-1], count, apart)


def rank_by_tokens(
    pipeline: SegmentationPipeline, dataset: SegmentationDataset, frames: int
) -> list[int]:
    """Return the indices of the first `frames` samples, those with the smallest share of tokens left in the end first.

    Where as many are left, in the order of the data set.
    """
    shares = []
    for index in tqdm(range(frames), desc='easy and hard images', unit='image', disable=None):
        stages = list(pipeline(dataset[index].image).tokens.stages.values())
        shares.append(stages[-1] / stages[0])
    return sorted(range(frames), key=lambda index: shares[index])


def choose_apart(ranked: Sequence[int], count: int, apart: int) -> list[int]:
    """Return at most `count` of the indices, the first ones that are at least `apart` from those before."""
    chosen: list[int] = []
    for index in ranked:
        if len(chosen) < count and all(abs(index - other) >= apart for other in chosen):
            chosen.append(index)
    return chosen


def spread(frames: int, count: int) -> list[int]:
    """Return at most `count` indices spread over the first `frames`, both ends left aside."""
    return sorted({(2 * index + 1) * frames // (2 * count) for index in range(count)})


def find_samples(dataset: FileDataset, frames: int, names: Sequence[str]) -> list[int]:
    """Return the indices of samples by name. Raises ValueError for a name that is not there."""
    known = {pair.name: index for index, pair in enumerate(dataset.files.pairs[:frames])}
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f'--images: expected names among {", ".join(list(known)[:NAMES_LISTED])}'
            f'{" ..." if len(known) > NAMES_LISTED else ""}, got {", ".join(missing)}'
        )
    return [known[name] for name in names]
