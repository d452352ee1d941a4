"""`hybrid_seg sweep`: accuracy against GFLOPs at each operating point of a model, as tables and a figure."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from tqdm import tqdm

from hybrid_seg_ros.data.segmentation_dataset import FileDataset, SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.evaluate import (
    EvaluationResult,
    add_model_and_dataset_arguments,
    evaluate,
    open_samples,
)
from hybrid_seg_ros.evaluation.accuracy.sweep_figure import draw_sweep
from hybrid_seg_ros.evaluation.accuracy.sweep_results import Sweep, SweepPoint, SweepRow, SweepSubject
from hybrid_seg_ros.evaluation.flops.count import count_flops
from hybrid_seg_ros.evaluation.pages.figures import require_matplotlib
from hybrid_seg_ros.files import write_text
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline, check_operating_point, load_pipeline
from hybrid_seg_ros.inference.pipeline_options import add_backend_arguments, keep_value, split_list, windows_value
from hybrid_seg_ros.model_spec import Keep, ModelSpec, Variant, Windows, sha256_of

KEEPS = (0.2, 0.4, 0.6, 0.8)
THRESHOLDS = (0.7, 0.8, 0.9, 0.95, 0.98)


def run_sweep(
    pipeline: SegmentationPipeline, dataset: SegmentationDataset, points: Sequence[SweepPoint], sweep: Sweep,
    path: Path, limit: Optional[int] = None,
) -> Sweep:  # fmt: skip
    """Evaluate the points that `sweep` lacks, one after the other; it is written to `path` (JSON) after each.

    Returns the whole sweep. Each point is evaluated as `hybrid_seg evaluate` does, on the dataset's first `limit`
    samples.
    """
    missing = [point for point in points if sweep.find(point) is None]
    done = len(points) - len(missing)
    with tqdm(total=len(points), initial=done, desc='sweep', unit='point', disable=None) as progress:
        for point in missing:
            progress.set_postfix_str(str(point))
            pipeline.set_operating_point(Variant.parse(point.variant), point.budget(pipeline.spec.budget))
            sweep = sweep.with_row(make_row(pipeline.spec, point, evaluate(pipeline, dataset, limit)))
            sweep.save_json(path)
            progress.update()
    return sweep


def plan_points(
    spec: ModelSpec, variants: Sequence[str], keeps: Sequence[Union[Keep, Sequence[Keep]]],
    thresholds: Sequence[float], merged: Sequence[Union[Keep, Windows]] = (),
) -> list[SweepPoint]:  # fmt: skip
    """List the points: those that merge with each number of `merged` windows, those that prune at each keep, threshold.

    Without `merged`, the model's own number of windows. The model's own point is among them if its variant is. Raises
    ValueError for what the model cannot run.
    """
    pruning = [('keep', keep) for keep in keeps] + [('threshold', float(threshold)) for threshold in thresholds]
    chosen = [Variant.parse(name) for name in variants]
    for variant in chosen:
        spec.check_variant(variant)
    points = [
        SweepPoint(str(variant), rule, value, windows)
        for variant in chosen
        for windows in ((merged or (spec.budget.merged_windows,)) if variant.merges else (None,))
        for rule, value in (pruning if variant.prune_layers else ((None, None),))
    ]
    if spec.variant in chosen:
        points.append(SweepPoint.default(spec))
    for point in points:
        check_operating_point(spec, Variant.parse(point.variant), point.budget(spec.budget))
    if not points:
        raise ValueError('expected at least one operating point, got no variants, or neither keeps nor thresholds')
    return list({str(point): point for point in points}.values())


def make_row(spec: ModelSpec, point: SweepPoint, result: EvaluationResult) -> SweepRow:
    """Turn an evaluation into a row; the dense variant's GFLOPs are counted, it need not have run.

    Raises ValueError for a dataset without any label.
    """
    if math.isnan(result.miou):
        raise ValueError(f'expected at least one labelled pixel in {result.frames} frames, got none')
    grid_hw = spec.backbone.grid_hw(spec.network_size_hw)
    cells = grid_hw[0] * grid_hw[1]
    crops = result.tokens_mean['total'] / cells  # 1, or more with a sliding window
    dense = crops * count_flops(spec, spec.network_size_hw, Variant(), cells).gflops
    return SweepRow(
        point, result.miou, result.pixel_accuracy, result.iou_per_class, result.tokens_mean, result.gflops_mean,
        result.gflops_mean / dense,
    )  # fmt: skip


def describe_subject(
    pipeline: SegmentationPipeline, dataset: FileDataset, dataset_name: str, split: str, frames: int
) -> SweepSubject:
    """Say what is evaluated, in such detail that rows of another run can be told apart."""
    spec = pipeline.spec
    names = '\n'.join(pair.name for pair in dataset.files.pairs[:frames])
    return SweepSubject(
        model=spec.name, model_sha256=spec.sha256 or sha256_of(spec.weights_path), dataset=dataset_name, split=split,
        frames=frames, samples_sha256=hashlib.sha256(names.encode()).hexdigest(), inference=spec.inference,
        keep_per_class=spec.budget.keep_per_class,
        backend=pipeline.backend_name, device=pipeline.device_name, precision=pipeline.precision,
    )  # fmt: skip


def resume(path: Path, subject: SweepSubject, default: SweepPoint, force: bool) -> Sweep:
    """Return the rows that are there already, none without a file or, if `force`, with one of another subject."""
    started = Sweep(subject, default)
    if not path.is_file():
        return started
    try:
        before = Sweep.load_json(path)
        differences = subject.differences(before.subject)
        if differences:
            raise ValueError(f'{path} is the sweep of something else: {"; ".join(differences)}')
    except ValueError as error:
        if force:
            return started
        raise ValueError(f'{error}; give another --output, or --force to start anew') from error
    return Sweep(subject, default, before.rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model_and_dataset_arguments(parser)
    parser.add_argument('--output', type=Path, required=True, help='folder of sweep.json, .csv, .md and .png; '
                        'points that sweep.json holds are not evaluated again')  # fmt: skip
    parser.add_argument('--variants', nargs='+', metavar='VARIANT', help='as in dense,cts,hybrid@8 (default: all that '
                        'the model can run)')  # fmt: skip
    parser.add_argument('--keeps', type=keep_values, nargs='*', default=KEEPS, metavar='KEEP',
                        help='tokens kept at each pruning layer, fractions or counts, or one for each, as in 0.6,0.05 '
                        '(default: 0.2 0.4 0.6 0.8)')  # fmt: skip
    parser.add_argument('--thresholds', type=float, nargs='*', default=THRESHOLDS, metavar='THRESHOLD',
                        help='confidences above which tokens leave (default: 0.7 0.8 0.9 0.95 0.98)')
    parser.add_argument('--merged', type=windows_value, nargs='+', default=(), metavar='WINDOWS',
                        help="windows that share a token, as in 103, 0.4 or 4:12,2:72 (default: the model's own)")
    add_backend_arguments(parser, compared=True)
    parser.add_argument('--force', action='store_true', help='start anew if the folder holds another sweep')


def keep_values(text: str) -> tuple[Keep, ...]:
    """Read what one point keeps: '0.6' at all layers, '0.6,0.05' at the first and the second."""
    return tuple(map(keep_value, text.split(',')))


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    require_matplotlib()  # now rather than after hours
    spec = ModelSpec.load(args.model)
    dataset, frames = open_samples(args, spec)
    variants = split_list(args.variants or spec.legal_variants())
    points = plan_points(spec, variants, args.keeps, args.thresholds, args.merged)
    pipeline = load_pipeline(
        args.model, args.backend, args.device, args.precision, inference=args.inference, graph=args.graph,
        cache_dir=args.cache_dir,
    )  # fmt: skip
    subject = describe_subject(pipeline, dataset, args.dataset, args.split, frames)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / 'sweep.json'
    sweep = resume(path, subject, SweepPoint.default(spec), args.force)
    sweep = run_sweep(pipeline, dataset, points, sweep, path, args.limit)
    sweep.save_json(path)
    sweep.save_csv(args.output / 'sweep.csv')
    write_text(args.output / 'sweep.md', sweep.markdown())
    draw_sweep(sweep, args.output / 'sweep.png')
    print(sweep.markdown(), end='')
    print(f'written to {args.output}: sweep.json, sweep.csv, sweep.md, sweep.png')
    return 0
