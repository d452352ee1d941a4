"""Tables 1.1 and 1.2: accuracy, GFLOPs and frames per second of each variant, measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.benchmark_open import OpenRow
from hybrid_seg_ros.evaluation.benchmark_rounds import run_rounds
from hybrid_seg_ros.evaluation.benchmark_rows import (
    DENSE,
    RowLaps,
    Violation,
    find_violations,
    paired_ratio,
    ratio_of_medians,
)
from hybrid_seg_ros.evaluation.evaluate_dataset import EvaluationResult, evaluate
from hybrid_seg_ros.evaluation.flops import count_flops
from hybrid_seg_ros.evaluation.paper.variants import inputs_per_image
from hybrid_seg_ros.model_spec import ModelSpec, Variant


@dataclass(frozen=True)
class PaperRow:
    """A variant's row. `miou` and `pixel_accuracy` in per cent, `gflops` and `tokens` per image, averaged over all.

    `gflops` counts everything, `gflops_without_policy` leaves out the policy network, as the paper does for ViT-Tiny;
    for ViT-Base that cannot be told. `fps` is 1000 / `median_ms`, from image to label map and confidence.
    `fps_to_dense` is the quotient of the medians, above 1 where this variant is faster; `fps_to_dense_paired` is the
    median of the rounds' quotients. The other differences are to the dense variant, too: `miou_change` in points,
    `gflops_change` in per cent.
    """

    variant: str
    merges: bool
    prune_layers: tuple[int, ...]
    miou: float
    pixel_accuracy: float
    gflops: float
    gflops_without_policy: float
    tokens: dict[str, float]
    fps: float
    median_ms: float
    p95_ms: float
    network_ms: float
    miou_change: float
    gflops_change: float
    fps_to_dense: float
    fps_to_dense_paired: float

    @property
    def saves_and_is_not_faster(self) -> bool:
        """Whether it takes fewer GFLOPs than the dense variant, but no less time."""
        return self.gflops_change < 0 and self.fps_to_dense_paired <= 1


def measure_rows(
    rows: Sequence[OpenRow], dataset: SegmentationDataset, limit: Optional[int], images: Sequence[np.ndarray],
    rounds: int, seed: int = 0,
) -> tuple[list[PaperRow], list[Violation]]:  # fmt: skip
    """Evaluate every variant on the dataset, and time all of them on `images` in interleaved rounds.

    The dense variant must be among them. Also returns which variants take fewer GFLOPs than another and are slower,
    beyond noise.
    """
    results = {}
    for row in tqdm(rows, desc='accuracy', unit='variant', disable=None):
        results[row.key.variant] = evaluate(row.pipeline, dataset, limit)
    measured = run_rounds(rows, {row.key.subject: images for row in rows}, rounds, seed, settle=1, with_parts=False)
    laps = {each.key.variant: each for each in measured}
    made = [
        make_row(row.model.spec, row.variant, results[row.key.variant], laps[row.key.variant], results[DENSE],
                 laps[DENSE])
        for row in rows
    ]  # fmt: skip
    return made, find_violations(measured)


def make_row(
    spec: ModelSpec, variant: Variant, result: EvaluationResult, laps: RowLaps, dense: EvaluationResult,
    dense_laps: RowLaps,
) -> PaperRow:  # fmt: skip
    """Put a variant's accuracy and times beside those of the dense one."""
    median_ms = statistics.median(laps.totals_ms)
    return PaperRow(
        variant=str(variant),
        merges=variant.merges,
        prune_layers=variant.prune_layers,
        miou=result.miou,
        pixel_accuracy=result.pixel_accuracy,
        gflops=result.gflops_mean,
        gflops_without_policy=result.gflops_mean - policy_gflops(spec, variant, result),
        tokens=result.tokens_mean,
        fps=1000.0 / median_ms,
        median_ms=median_ms,
        p95_ms=float(np.percentile(laps.totals_ms, 95)),
        network_ms=statistics.median(lap.timings.inference_ms for lap in laps.laps),
        miou_change=result.miou - dense.miou,
        gflops_change=100.0 * (result.gflops_mean / dense.gflops_mean - 1.0),
        fps_to_dense=ratio_of_medians(dense_laps, laps),
        fps_to_dense_paired=paired_ratio(dense_laps, laps),
    )


def policy_gflops(spec: ModelSpec, variant: Variant, result: EvaluationResult) -> float:
    """Return what the policy network alone costs per image; 0 where nothing is merged."""
    if not variant.merges:
        return 0.0
    cells = int(np.prod(spec.backbone.grid_hw(spec.network_size_hw)))
    once = count_flops(spec, spec.network_size_hw, Variant(merges=True), cells).policy / 1e9
    return once * inputs_per_image(spec, result.tokens_mean)
