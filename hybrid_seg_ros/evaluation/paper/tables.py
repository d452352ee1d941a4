"""Tables 1.1 and 1.2: accuracy, GFLOPs and frames per second of each variant, as JSON, CSV and Markdown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.evaluate import EvaluationResult, evaluate
from hybrid_seg_ros.evaluation.benchmark.open_rows import OpenRow
from hybrid_seg_ros.evaluation.benchmark.results import (
    DENSE,
    FEWEST_ROUNDS,
    BenchmarkRow,
    Violation,
    find_violations,
    summarize,
)
from hybrid_seg_ros.evaluation.benchmark.rounds import run_rounds
from hybrid_seg_ros.evaluation.flops.count import count_flops
from hybrid_seg_ros.evaluation.flops.paper import PAPER_FPS, PAPER_GFLOPS
from hybrid_seg_ros.evaluation.pages.tables import format_csv, format_table
from hybrid_seg_ros.evaluation.paper.layers import LayerCosts
from hybrid_seg_ros.evaluation.paper.token_figures import TokenFigures
from hybrid_seg_ros.files import finite_or_null
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
    rounds: int,
) -> tuple[list[PaperRow], list[Violation]]:  # fmt: skip
    """Evaluate every variant on the dataset, and time all of them on `images` in interleaved rounds.

    The dense variant must be among them. Also returns which variants take fewer GFLOPs than another and are slower,
    beyond noise.
    """
    results = [evaluate(row.pipeline, dataset, limit)
               for row in tqdm(rows, desc='accuracy', unit='variant', disable=None)]  # fmt: skip
    model = rows[0].key.sized_model
    measured = run_rounds(rows, {model: images}, rounds, seed=0, settle=1, with_parts=False)
    dense = next(result for row, result in zip(rows, results) if row.key.variant == DENSE)
    made = [make_row(row.model.spec, row.variant, result, dense, timed)
            for row, result, timed in zip(rows, results, summarize(measured, {model: model}))]  # fmt: skip
    return made, find_violations(measured)


def make_row(
    spec: ModelSpec, variant: Variant, result: EvaluationResult, dense: EvaluationResult, timed: BenchmarkRow
) -> PaperRow:
    """Put a variant's accuracy and times beside those of the dense one."""
    return PaperRow(
        variant=str(variant),
        merges=variant.merges,
        prune_layers=variant.prune_layers,
        miou=result.miou,
        pixel_accuracy=result.pixel_accuracy,
        gflops=result.gflops_mean,
        gflops_without_policy=result.gflops_mean - policy_gflops(spec, variant, result),
        tokens=result.tokens_mean,
        fps=1000.0 / timed.median_ms,
        median_ms=timed.median_ms,
        p95_ms=timed.p95_ms,
        network_ms=timed.parts_ms['network'],
        miou_change=result.miou - dense.miou,
        gflops_change=100.0 * (result.gflops_mean / dense.gflops_mean - 1.0),
        fps_to_dense=timed.ratio_to_dense,
        fps_to_dense_paired=timed.ratio_to_dense_paired,
    )


def inputs_per_image(spec: ModelSpec, tokens: Mapping[str, float]) -> float:
    """Return how often the network ran for an image: once, or for each crop of the sliding window."""
    grid_hw = spec.backbone.grid_hw(spec.network_size_hw)
    return tokens['total'] / (grid_hw[0] * grid_hw[1])


def policy_gflops(spec: ModelSpec, variant: Variant, result: EvaluationResult) -> float:
    """Return what the policy network alone costs per image; 0 where nothing is merged."""
    if not variant.merges:
        return 0.0
    cells = int(np.prod(spec.backbone.grid_hw(spec.network_size_hw)))
    once = count_flops(spec, spec.network_size_hw, Variant(merges=True), cells).gflops_of('policy')
    return once * inputs_per_image(spec, result.tokens_mean)


@dataclass(frozen=True)
class PaperSetup:
    """What was measured, on what, and how; `weights` is 'random', or the sha256 of the file.

    `pruning` says by what rule tokens leave in the tables, `sliding` that the network sees crops of `size_hw`,
    `threshold` above which confidence they leave in the pictures, `parts_device` on what the layers were timed, in
    PyTorch and float32.
    """

    model: str
    weights: str
    size_hw: tuple[int, int]
    sliding: bool
    classes: int
    dataset: str
    split: str
    frames: int
    backend: str
    dtype: str
    device: str
    parts_device: str
    rounds: int
    pruning: str
    threshold: float


@dataclass(frozen=True)
class PaperTables:
    """The numbers: a row per variant, what each layer costs, and which of the paper's variants the model lacks and why.

    `slower` are those that take fewer GFLOPs than another and are slower, beyond noise.
    """

    subject: PaperSetup
    rows: tuple[PaperRow, ...]
    layers: tuple[LayerCosts, ...]
    missing_variants: dict[str, str]
    slower: tuple[Violation, ...]

    def verdict(self) -> str:
        """Say whether each variant that saves GFLOPs also saves time; this is what merging and pruning are for."""
        saving = [row for row in self.rows if row.gflops_change < 0]
        failing = [row.variant for row in saving if row.saves_and_is_not_faster]
        if not saving:
            return 'No variant takes fewer GFLOPs than the dense one.'
        if not failing:
            text = 'Every variant that takes fewer GFLOPs than the dense one is also faster'
        else:
            text = f'Not faster than the dense one, though of fewer GFLOPs: {", ".join(failing)}'
        text += f' (median over {self.subject.rounds} rounds of the quotient in each round).'
        if self.subject.rounds < FEWEST_ROUNDS:
            return text + f' That is not to be relied on: it takes at least {FEWEST_ROUNDS} rounds to tell from chance.'
        names = [f'{each.cheaper.variant} than {each.dearer.variant}' for each in self.slower]
        found = f'slower though of fewer GFLOPs: {", ".join(names)}' if names else 'none is slower than a dearer one'
        return f'{text} Beyond noise, {found}.'


TABLE_COLUMNS = ('variant', 'reduces by', 'mIoU %', 'GFLOPs', 'without policy', 'tokens', 'ms', 'FPS')
PAPER_NAMES = {'vit_tiny': 'ViT-T', 'vit_base': 'ViT-B'}


def to_json(tables: PaperTables, figures: TokenFigures) -> str:
    """Return everything as JSON, and which images the figures show."""
    content = dataclasses.asdict(tables)
    content['verdict'] = tables.verdict()
    content['slower'] = [str(each) for each in tables.slower]
    content['layers'] = {each.pop('variant'): each for each in content['layers']}
    content['images'] = {'merging': figures.merging, 'pruning': figures.pruning}
    for name in ('merged', 'easy', 'hard'):
        content['images'][name] = [
            {'name': each.name, 'tokens': each.tokens, 'miou': each.miou} for each in getattr(figures, name)
        ]
    return json.dumps(finite_or_null(content), indent=2) + '\n'


def to_csv(tables: PaperTables) -> str:
    """Return the rows as CSV: a column per field, tokens by stage in columns of their own."""
    return format_csv([
        {**{name: value for name, value in vars(row).items() if name != 'tokens'},
         'prune_layers': '+'.join(map(str, row.prune_layers)), 'tokens': row.tokens}
        for row in tables.rows
    ])  # fmt: skip


def to_markdown(tables: PaperTables) -> str:
    """Return the tables for a document."""
    of_variants = format_table(TABLE_COLUMNS, table_cells(tables.rows), markdown=True, names=2)
    beside_paper = format_table(paper_columns(), paper_cells(tables.rows), markdown=True)
    return f'{of_variants}\n\n{beside_paper}\n\n{tables.verdict()}\n'


def table_cells(rows: Sequence[PaperRow]) -> list[tuple[str, ...]]:
    """Return the cells of tables 1.1 and 1.2, under TABLE_COLUMNS; in brackets, what changes from dense."""
    return [
        (
            row.variant,
            ', '.join(['merging'] * row.merges + ['pruning'] * bool(row.prune_layers)),
            f'{row.miou:.2f}' + _unless_dense(row, f' ({round(row.miou_change, 2) + 0.0:+.2f})'),
            f'{row.gflops:.2f}' + _unless_dense(row, f' ({row.gflops_change:+.0f} %)'),
            f'{row.gflops_without_policy:.2f}',
            ' > '.join(f'{count:.0f}' for count in list(row.tokens.values())[1:]),
            f'{row.median_ms:.1f}',
            f'{row.fps:.1f}' + _unless_dense(row, f' ({row.fps_to_dense:.2f}x)'),
        )
        for row in rows
    ]  # fmt: skip


def paper_columns() -> tuple[str, ...]:
    """Return the columns of `paper_cells`."""
    names = PAPER_NAMES.values()
    return ('variant', 'GFLOPs, here', *(f'{name}, paper' for name in names),
            'FPS, here', *(f'{name}, paper' for name in names))  # fmt: skip


def paper_cells(rows: Sequence[PaperRow]) -> list[tuple[str, ...]]:
    """Return what was measured beside what the paper reports, each with its relation to the dense variant."""
    dense = next(row for row in rows if row.variant == DENSE)
    cells = []
    for row in rows:
        share = 100.0 * row.gflops_without_policy / dense.gflops_without_policy
        cells.append((
            row.variant,
            f'{row.gflops_without_policy:.2f}' + _unless_dense(row, f' ({share:.0f} %)'),
            *(_reported(row, PAPER_GFLOPS[name], '{:.0%}') for name in PAPER_NAMES),
            f'{row.fps:.1f}' + _unless_dense(row, f' ({row.fps_to_dense:.2f}x)'),
            *(_reported(row, PAPER_FPS[name], '{:.2f}x') for name in PAPER_NAMES),
        ))  # fmt: skip
    return cells


def _reported(row: PaperRow, reported: Mapping[str, float], form: str) -> str:
    """Return a figure of the paper and how it relates to its dense one; a dash where it reports none."""
    if row.variant not in reported:
        return '-'
    value = reported[row.variant]
    relation = form.format(value / reported[DENSE]).replace('%', ' %')
    return f'{value:.1f}' + _unless_dense(row, f' ({relation})')


def _unless_dense(row: PaperRow, text: str) -> str:
    return '' if row.variant == DENSE else text
