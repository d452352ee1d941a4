"""Whether the confidence by which tokens leave early is worth its name: `hybrid_seg evaluate --calibration`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from tqdm import tqdm

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.policy_accuracy import fit_labels
from hybrid_seg_ros.evaluation.pages.figures import GREY, STYLES, TEXT, new_figure, save_figure, style_axis
from hybrid_seg_ros.inference.preprocess import fit_geometry, preprocess
from hybrid_seg_ros.label_space import UNLABELLED
from hybrid_seg_ros.model_spec import PRUNING_HEADS, ModelSpec, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead
from hybrid_seg_ros.network.segmenter import HybridSegmenter, SegmenterOutput
from hybrid_seg_ros.network.token_pruning import class_confidence

BINS = 15
THRESHOLDS = (0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class ReliabilityBin:
    """Cells with `low` < confidence <= `high`: how many, their mean confidence and accuracy in per cent."""

    low: float
    high: float
    count: int
    confidence: Optional[float]
    accuracy: Optional[float]


@dataclass(frozen=True)
class AboveThreshold:
    """Cells more confident than `threshold`: their share of all and how many of them are right, in per cent."""

    threshold: float
    share: float
    accuracy: Optional[float]


@dataclass(frozen=True)
class StageCalibration:
    """How far a head's confidence can be trusted, over the labelled cells; all but `layer` and `cells` in per cent.

    `expected_calibration_error` is that of Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), eq. 3:
    the gap between confidence and accuracy, averaged over equally wide bins by the cells in them.
    """

    layer: int
    cells: int
    accuracy: float
    confidence: float
    expected_calibration_error: float
    thresholds: tuple[AboveThreshold, ...]
    bins: tuple[ReliabilityBin, ...]

    def at(self, threshold: float) -> AboveThreshold:
        """Return the entry of a threshold. Raises ValueError if there is none."""
        for entry in self.thresholds:
            if entry.threshold == threshold:
                return entry
        raise ValueError(f'expected one of {[entry.threshold for entry in self.thresholds]}, got {threshold}')


@torch.inference_mode()
def calibrate(
    model: HybridSegmenter, dataset: SegmentationDataset, frames: int, thresholds: Sequence[float] = THRESHOLDS
) -> list[StageCalibration]:
    """Judge the heads of a model on the first `frames` samples, where every token reaches each of them (no pruning).

    Tokens are merged as the model's budget says, if it can merge. Each cell of the patch grid is judged, with the
    confidence and class of its token, so that the token of a merged 2x2 window counts as four: it is right where its
    class is the most frequent one among the cell's labelled pixels; cells that are mostly unlabelled do not count.
    Whole frames at the model's input size. Raises ValueError for a model whose head does not say how sure it is.
    """
    spec = model.spec
    check_head(spec)
    model.eval()
    variant = Variant(merges=spec.policy != 'none')
    seen: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for index in tqdm(range(frames), desc='calibration', unit='image', leave=False, disable=None):
        sample = dataset[index]
        geometry = fit_geometry(sample.labels.shape, spec)
        pixels = torch.from_numpy(preprocess(sample.image, geometry, spec))[None].to(model.mean.device)
        output = model(model.normalize(pixels), variant, spec.budget, supervise=True)
        patch = spec.backbone.patch_size
        padded_hw = (output.layout.grid_hw[0] * patch, output.layout.grid_hw[1] * patch)
        labels = fit_labels(sample.labels, geometry.content_hw, padded_hw)
        targets = majority_labels(labels, patch, len(spec.classes)).ravel()
        known = targets != UNLABELLED
        for layer, (confidence, classes) in judge_cells(output).items():
            seen.setdefault(layer, []).append((confidence[known], (classes == targets)[known]))
    return [summarize(layer, *map(np.concatenate, zip(*parts)), thresholds) for layer, parts in seen.items()]


def majority_labels(labels: np.ndarray, cell_px: int, num_classes: int) -> np.ndarray:
    """Return the most frequent class of each cell, (H // cell_px, W // cell_px) uint8; the lower id wins a tie.

    `labels` (H, W) uint8, sides divisible by `cell_px`. A cell with more unlabelled than labelled pixels is 255.
    """
    height, width = labels.shape
    if height % cell_px or width % cell_px:
        raise ValueError(f'expected labels whose sides are multiples of {cell_px}, got {labels.shape}')
    blocks = labels.reshape(height // cell_px, cell_px, width // cell_px, cell_px)
    counts = np.stack([(blocks == index).sum((1, 3)) for index in range(num_classes)])  # (classes, gh, gw)
    mostly_labelled = 2 * counts.sum(0) >= cell_px**2
    return np.where(mostly_labelled, counts.argmax(0), UNLABELLED).astype(np.uint8)


def check_head(spec: ModelSpec) -> None:
    """Raise ValueError for a model whose head does not say how sure it is."""
    if spec.head not in PRUNING_HEADS:
        raise ValueError(f'{spec.name}: expected head {" or ".join(PRUNING_HEADS)}, which prune; got {spec.head}')


def judge_cells(output: SegmenterOutput) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return confidence in [0, 1] and class of each cell, (cells,) each, by layer; of an output for one image."""
    judged = {}
    for stage in output.stages:
        present = AtmHead.class_probability(stage.class_logits)
        confidence, classes = class_confidence(present, stage.mask_logits.float())  # (1, N) each
        by_cell = (output.layout.unmerge(values[:, :, None])[0, :, 0].cpu().numpy() for values in (confidence, classes))
        judged[stage.layer] = tuple(by_cell)
    return judged


def summarize(
    layer: int, confidence: np.ndarray, right: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> StageCalibration:
    """Compare confidences (cells,) in [0, 1] with whether the cells are `right` (cells,) bool."""
    if not len(confidence):
        raise ValueError(f'layer {layer}: expected at least one labelled cell, got none')
    confidence = confidence.astype(np.float64)
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, confidence, BINS), np.bincount(place, right, BINS)
    bins = tuple(
        ReliabilityBin(index / BINS, (index + 1) / BINS, int(count),
                       *(100.0 * float(total[index]) / count if count else None for total in sums))
        for index, count in enumerate(counts.tolist())
    )  # fmt: skip
    above = []
    for threshold in thresholds:
        chosen = right[confidence > threshold]
        accuracy = 100.0 * float(chosen.mean()) if len(chosen) else None
        above.append(AboveThreshold(threshold, 100.0 * len(chosen) / len(right), accuracy))
    return StageCalibration(
        layer=layer,
        cells=len(right),
        accuracy=100.0 * float(right.mean()),
        confidence=100.0 * float(confidence.mean()),
        expected_calibration_error=100.0 * float(np.abs(sums[0] - sums[1]).sum()) / len(right),
        thresholds=tuple(above),
        bins=bins,
    )


def format_calibration(stages: Sequence[StageCalibration]) -> str:
    """Return a line for each head, and under it one for each threshold."""
    lines = []
    for stage in stages:
        lines.append(f'after layer {stage.layer}: expected calibration error {stage.expected_calibration_error:.2f} %, '
                     f'{stage.accuracy:.2f} % of {stage.cells} cells right at a mean confidence of '
                     f'{stage.confidence:.2f} %')  # fmt: skip
        for entry in stage.thresholds:
            right = 'none' if entry.accuracy is None else f'{entry.accuracy:.2f} % of them right'
            lines.append(f'  above {entry.threshold:g}: {entry.share:6.2f} % of cells, {right}')
    return '\n'.join(lines)


def draw_reliability(stages: Sequence[StageCalibration], threshold: float, title: str, path: Path) -> None:
    """Draw a reliability diagram for each stage, and how many cells fall in each bin, as a PNG of SIZE_PX."""
    figure = new_figure()
    figure.suptitle(title, fontsize=TEXT + 1)
    rows = figure.subplots(
        2, len(stages), sharex=True, sharey='row', squeeze=False, gridspec_kw={'height_ratios': (4, 1)}
    )
    figure.subplots_adjust(left=0.065, right=0.98, bottom=0.11, top=0.78, wspace=0.12, hspace=0.1)
    for stage, panel, shares in zip(stages, *rows):
        color = STYLES['dtop@6+8'][0]
        width = stage.bins[0].high - stage.bins[0].low
        filled = [each for each in stage.bins if each.count]
        for axis in (panel, shares):
            style_axis(axis)
            axis.axvline(threshold, color='black', linewidth=1, linestyle=(0, (4, 3)))
        panel.plot((0, 1), (0, 100), color='black', linewidth=1)
        panel.bar([each.low for each in filled], [each.accuracy for each in filled], width, align='edge', color=color,
                  edgecolor='white')  # fmt: skip
        chosen = stage.at(threshold)
        right = '' if chosen.accuracy is None else f', {chosen.accuracy:.1f} % of them right'
        panel.annotate(f'after layer {stage.layer}', (0, 1), xycoords='axes fraction', xytext=(0, 38),
                       textcoords='offset points', fontsize=TEXT, fontweight='bold')  # fmt: skip
        panel.set_title(f'expected calibration error {stage.expected_calibration_error:.1f} %\n'
                        f'above {threshold:g}: {chosen.share:.0f} % of cells{right}',
                        fontsize=TEXT - 1, loc='left', pad=8)  # fmt: skip
        shares.bar([each.low for each in filled], [100 * each.count / stage.cells for each in filled], width,
                   align='edge', color=GREY, edgecolor='white')  # fmt: skip
        shares.set_xlabel('confidence', fontsize=TEXT)
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 100)
    rows[0][0].set_ylabel('right, in %', fontsize=TEXT)
    rows[1][0].set_ylabel('cells, in %', fontsize=TEXT)
    save_figure(figure, path)
