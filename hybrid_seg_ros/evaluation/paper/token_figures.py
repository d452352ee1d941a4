"""Figures 1.2, 1.4 and 1.5: which patches merge, and which tokens leave early on easy and on hard images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.data.segmentation_dataset import FileDataset, Sample, SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix
from hybrid_seg_ros.inference.backends import Backend
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.segmentation import Segmentation
from hybrid_seg_ros.visualization import TitledPicture, draw_overlay, draw_pruned, draw_sheet, draw_token_map, fit_image

HEIGHT = 360
"""Pixels of a picture's height."""
MERGED_SHOWN, PRUNED_SHOWN = 4, 2
"""So many images in figure 1.2, and so many easy and hard ones each."""

APART = 20
"""Easy images, and hard ones, are at least this part of the data set apart: frames of a video resemble each other."""
NAMES_LISTED = 10


@dataclass(frozen=True)
class ShownImage:
    """An image of the data set in pictures; `tokens` are those by stage, `miou` in per cent that of this image."""

    name: str
    tokens: dict[str, int]
    miou: float
    pictures: tuple[TitledPicture, ...]

    @property
    def share_left(self) -> float:
        """Tokens that went to the end, in per cent of the patches."""
        return 100.0 * list(self.tokens.values())[-1] / self.tokens['total']


@dataclass(frozen=True)
class TokenFigures:
    """Figures 1.2, 1.4 and 1.5, and the variants that they show; a variant is None where the model has none.

    Without images to show `easy` or `hard` are empty.
    """

    merging: Optional[str] = None
    pruning: Optional[str] = None
    merged: tuple[ShownImage, ...] = ()
    easy: tuple[ShownImage, ...] = ()
    hard: tuple[ShownImage, ...] = ()

    def sheets(self) -> dict[str, np.ndarray]:
        """Return the figures as pictures (H, W, 3) uint8 RGB, by the name of their file."""
        pictures = [each for shown in self.merged for each in shown.pictures]
        pairs = [pictures[start : start + 2] for start in range(0, len(pictures), 2)]
        sheets = {'figure_1_2_merged.jpg': draw_sheet(pairs, 400)} if pairs else {}
        for name, images in (('figure_1_4_easy.jpg', self.easy), ('figure_1_5_hard.jpg', self.hard)):
            if images:
                sheets[name] = draw_sheet([shown.pictures for shown in images], 260)
        return sheets


def draw_token_figures(
    backend: Backend, spec: ModelSpec, threshold: TokenBudget, dataset: FileDataset, frames: int,
    names: Optional[Sequence[str]] = None,
) -> TokenFigures:  # fmt: skip
    """Draw the figures of a model with a PyTorch backend in float32, from the first `frames` samples of a dataset.

    Tokens leave by the threshold of the budget `threshold`: with a fixed keep as many would leave every image. Figure
    1.2 shows the samples `names`, or some that are spread over the dataset. Easy images are those with the fewest
    tokens left in the end, hard ones those with the most.
    """
    merging, pruning = merging_variant(spec), pruning_variant(spec)
    merged: tuple[ShownImage, ...] = ()
    easy, hard = merged, merged
    if merging is not None:
        chosen = spread(frames, MERGED_SHOWN) if names is None else find_samples(dataset, frames, names)
        pipeline = SegmentationPipeline(spec, backend, 'pytorch', 'float32', merging, threshold)
        merged = _show(pipeline, dataset, chosen, _merged_pictures)
    if pruning is not None:
        pipeline = SegmentationPipeline(spec, backend, 'pytorch', 'float32', pruning, threshold)
        easy, hard = (_show(pipeline, dataset, indices, _pruned_pictures)
                      for indices in easy_and_hard(pipeline, dataset, frames, PRUNED_SHOWN))  # fmt: skip
    return TokenFigures(merging and str(merging), pruning and str(pruning), merged, easy, hard)


def merging_variant(spec: ModelSpec) -> Optional[Variant]:
    """Return the variant that only merges; None if the model cannot."""
    return Variant(merges=True) if 'cts' in spec.legal_variants() else None


def pruning_variant(spec: ModelSpec) -> Optional[Variant]:
    """Return the variant that shows pruning: with most pruning layers, and merging if the model can; None if none."""
    pruning = [variant for variant in map(Variant.parse, spec.legal_variants()) if variant.prune_layers]
    return max(pruning, key=lambda variant: (len(variant.prune_layers), variant.merges), default=None)


Drawing = Callable[[Sample, Segmentation, tuple[int, int], LabelSpace], Iterable[TitledPicture]]
"""Draws what came of a sample in pictures of a size."""


def _show(
    pipeline: SegmentationPipeline, dataset: SegmentationDataset, indices: Sequence[int], drawing: Drawing
) -> tuple[ShownImage, ...]:
    shown = []
    for sample in (dataset[index] for index in indices):
        result = pipeline(sample.image)
        matrix = ConfusionMatrix(len(dataset.classes))
        matrix.update(result.labels, sample.labels)
        size_hw = (HEIGHT, max(1, round(HEIGHT * sample.image.shape[1] / sample.image.shape[0])))
        pictures = tuple(drawing(sample, result, size_hw, dataset.classes))
        shown.append(ShownImage(sample.name, result.tokens.stages, matrix.miou(), pictures))
    return tuple(shown)


def _merged_pictures(
    sample: Sample, result: Segmentation, size_hw: tuple[int, int], classes: LabelSpace
) -> Iterator[TitledPicture]:
    """Show which patches merge (figure 1.2): shared windows blue, single patches red."""
    title = f'{sample.name}: {result.tokens.total} patches, {result.tokens.entering} tokens'
    yield TitledPicture(title, draw_token_map(sample.image, result.tokens, size_hw))


def _pruned_pictures(
    sample: Sample, result: Segmentation, size_hw: tuple[int, int], classes: LabelSpace
) -> Iterator[TitledPicture]:
    """Show what is pruned, stage by stage (figures 1.4 and 1.5), and what comes out, beside the ground truth."""
    yield TitledPicture(sample.name.rpartition('/')[2], fit_image(sample.image, size_hw))
    for layer, count in result.tokens.kept:
        gone = 100.0 * (result.tokens.entering - count) / result.tokens.entering
        drawn = draw_pruned(sample.image, result.tokens, layer, size_hw)
        yield TitledPicture(f'after layer {layer}: {gone:.0f} % pruned', drawn)
    for title, labels in (('prediction', result.labels), ('ground truth', sample.labels)):
        yield TitledPicture(title, fit_image(draw_overlay(sample.image, labels, classes), size_hw))


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


def rank_by_tokens(pipeline: SegmentationPipeline, dataset: SegmentationDataset, frames: int) -> list[int]:
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
