"""Figures 1.2, 1.4 and 1.5: which patches merge, and which tokens leave early on easy and on hard images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.data.segmentation_dataset import FileDataset, Sample, SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix
from hybrid_seg_ros.inference.backends import Backend
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.segmentation import TokenReport
from hybrid_seg_ros.visualization import draw_overlay, draw_token_map, fit_image

HEIGHT = 360
"""Pixels of a picture's height."""
MERGED_SHOWN, PRUNED_SHOWN = 4, 2
"""So many images in figure 1.2, and so many easy and hard ones each."""


@dataclass(frozen=True)
class ShownImage:
    """An image of the data set in pictures; `tokens` are those by stage, `miou` in per cent that of this image."""

    name: str
    tokens: dict[str, int]
    miou: float
    pictures: tuple[Titled, ...]

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
        sheets = {'figure_1_2_merged.jpg': make_sheet(list(_pairs(pictures)), 400)} if pictures else {}
        for name, images in (('figure_1_4_easy.jpg', self.easy), ('figure_1_5_hard.jpg', self.hard)):
            if images:
                sheets[name] = make_sheet([shown.pictures for shown in images], 260)
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
    merged: list[ShownImage] = []
    easy, hard = merged, merged
    if merging is not None:
        chosen = spread(frames, MERGED_SHOWN) if names is None else find_samples(dataset, frames, names)
        pipeline = SegmentationPipeline(spec, backend, 'pytorch', 'float32', merging, threshold)
        merged = merged_pictures(pipeline, dataset, chosen)
    if pruning is not None:
        pipeline = SegmentationPipeline(spec, backend, 'pytorch', 'float32', pruning, threshold)
        easy, hard = (pruned_pictures(pipeline, dataset, indices)
                      for indices in easy_and_hard(pipeline, dataset, frames, PRUNED_SHOWN))  # fmt: skip
    return TokenFigures(
        None if merging is None else str(merging), None if pruning is None else str(pruning), tuple(merged),
        tuple(easy), tuple(hard),
    )  # fmt: skip


def merging_variant(spec: ModelSpec) -> Optional[Variant]:
    """Return the variant that only merges; None if the model cannot."""
    return Variant(merges=True) if 'cts' in spec.legal_variants() else None


def pruning_variant(spec: ModelSpec) -> Optional[Variant]:
    """Return the variant that shows pruning: with most pruning layers, and merging if the model can; None if none."""
    pruning = [variant for variant in map(Variant.parse, spec.legal_variants()) if variant.prune_layers]
    return max(pruning, key=lambda variant: (len(variant.prune_layers), variant.merges), default=None)


def merged_pictures(
    pipeline: SegmentationPipeline, dataset: SegmentationDataset, indices: Sequence[int]
) -> list[ShownImage]:
    """Show which patches merge (figure 1.2) on some samples: shared windows blue, single patches red."""
    shown = []
    for sample in (dataset[index] for index in indices):
        result = pipeline(sample.image)
        size_hw = fitting_size(sample.image)
        title = f'{sample.name}: {result.tokens.total} patches, {result.tokens.entering} tokens'
        pictures = (Titled(title, draw_token_map(sample.image, result.tokens, size_hw)),)
        shown.append(ShownImage(sample.name, result.tokens.stages, _miou(result.labels, sample, dataset), pictures))
    return shown


def pruned_pictures(
    pipeline: SegmentationPipeline, dataset: SegmentationDataset, indices: Sequence[int]
) -> list[ShownImage]:
    """Show what is pruned, stage by stage (figures 1.4 and 1.5), and what comes out, beside the ground truth."""
    shown = []
    for sample in (dataset[index] for index in indices):
        result = pipeline(sample.image)
        size_hw = fitting_size(sample.image)
        miou = _miou(result.labels, sample, dataset)
        pictures = [Titled(sample.name.rpartition('/')[2], fit_image(sample.image, size_hw))]
        for layer, count in result.tokens.kept:
            gone = 100.0 * (result.tokens.entering - count) / result.tokens.entering
            drawn = draw_pruned(sample.image, result.tokens, layer, size_hw)
            pictures.append(Titled(f'after layer {layer}: {gone:.0f} % pruned', drawn))
        pictures += [
            Titled('prediction', _overlay(sample.image, result.labels, dataset.classes, size_hw)),
            Titled('ground truth', _overlay(sample.image, sample.labels, dataset.classes, size_hw)),
        ]
        shown.append(ShownImage(sample.name, result.tokens.stages, miou, tuple(pictures)))
    return shown


def draw_pruned(image: np.ndarray, tokens: TokenReport, layer: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Draw an image (H, W, 3) uint8 RGB at `size_hw`, black where tokens have left by `layer`.

    Where the crops of a sliding window overlap, black is where the token of one of them has left.
    """
    picture = fit_image(image, size_hw).copy()
    gone = (tokens.pruned_after_layer > 0) & (tokens.pruned_after_layer <= layer)
    areas = tokens.areas or ((0.0, 0.0, float(image.shape[0]), float(image.shape[1])),)
    scale_y, scale_x = size_hw[0] / image.shape[0], size_hw[1] / image.shape[1]
    for cells, (top, left, height, width) in zip(np.split(gone, len(areas)), areas):
        y, x = round(top * scale_y), round(left * scale_x)
        size = (max(1, round(width * scale_x)), max(1, round(height * scale_y)))
        spread = cv2.resize(cells.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        region = picture[y : y + size[1], x : x + size[0]]  # a grid may reach past the image
        region[spread[: region.shape[0], : region.shape[1]]] = 0
    return picture


def fitting_size(image: np.ndarray) -> tuple[int, int]:
    """Return (height, width) of the pictures of an image: HEIGHT pixels high, of the image's aspect."""
    return HEIGHT, max(1, round(HEIGHT * image.shape[1] / image.shape[0]))


def _pairs(pictures: Sequence[Titled]) -> Iterator[Sequence[Titled]]:
    for start in range(0, len(pictures), 2):
        yield pictures[start : start + 2]


def _overlay(image: np.ndarray, labels: np.ndarray, classes: LabelSpace, size_hw: tuple[int, int]) -> np.ndarray:
    return fit_image(draw_overlay(image, labels, classes), size_hw)


def _miou(labels: np.ndarray, sample: Sample, dataset: SegmentationDataset) -> float:
    matrix = ConfusionMatrix(len(dataset.classes))
    matrix.update(labels, sample.labels)
    return matrix.miou()


BAND, GAP = 24, 6
FONT, SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5


@dataclass(frozen=True)
class Titled:
    """A picture (H, W, 3) uint8 RGB and what it shows, in a few words."""

    title: str
    rgb: np.ndarray


def make_sheet(rows: Sequence[Sequence[Titled]], width: int) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, white where there is nothing; every picture is fitted into `width` pixels.

    Each keeps its aspect; a title that is too long is written smaller.
    """
    if not rows or not all(rows):
        raise ValueError(f'expected at least one picture in each row, got {[len(row) for row in rows]}')
    columns = max(len(row) for row in rows)
    strips = []
    for row in rows:
        heights = [max(1, round(width * each.rgb.shape[0] / each.rgb.shape[1])) for each in row]
        strip = np.full((BAND + max(heights) + GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
        for index, (each, height) in enumerate(zip(row, heights)):
            left = index * (width + GAP)
            fitted = cv2.resize(each.rgb, (width, height), interpolation=cv2.INTER_AREA)
            strip[BAND : BAND + height, left : left + width] = fitted
            text_width = cv2.getTextSize(each.title, FONT, SCALE, 1)[0][0]
            scale = SCALE * min(1.0, width / max(1, text_width))
            cv2.putText(strip, each.title, (left, BAND - 8), FONT, scale, (30, 30, 30), 1, cv2.LINE_AA)
        strips.append(strip)
    return np.concatenate(strips)


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
