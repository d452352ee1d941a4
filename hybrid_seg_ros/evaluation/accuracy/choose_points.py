"""`hybrid_seg choose-points`: a few operating points of a sweep, from which a latency budget chooses at run time."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hybrid_seg_ros.evaluation.accuracy.sweep_results import Sweep, SweepRow
from hybrid_seg_ros.evaluation.pages.tables import format_table, format_tokens
from hybrid_seg_ros.files import write_text
from hybrid_seg_ros.inference.points_table import (
    OperatingPoint,
    PointsSource,
    default_points_path,
    format_operating_points,
    make_point,
)
from hybrid_seg_ros.model_spec import ModelSpec, Variant


def choose_points(sweep: Sweep, spec: ModelSpec, count: int, min_miou: float = 0.0) -> tuple[OperatingPoint, ...]:
    """Choose `count` points of a sweep along its Pareto front of mIoU over GFLOPs, from the cheapest to the dearest.

    Only points with a fixed number of tokens: their cost does not depend on the image, and each needs one graph or
    engine of fixed shapes. Among those of at least `min_miou` per cent the cheapest and the most accurate are always
    chosen. Fewer than `count` if the front has no more. Raises ValueError if there is none.
    """
    if count < 2:
        raise ValueError(f'--count: expected at least 2 points, the cheapest and the most accurate, got {count}')
    fixed = [_measured_point(row, spec) for row in sweep.rows if row.point.rule != 'threshold']
    enough = [point for point in fixed if point.miou >= min_miou]
    if not enough:
        best = max((point.miou for point in fixed), default=0.0)
        raise ValueError(f'expected a point with a fixed number of tokens and at least {min_miou:g} % mIoU, got '
                         f'{len(fixed)} with a fixed number, the best with {best:g} %')  # fmt: skip
    return spread_evenly(pareto_front(enough), count)


def pareto_front(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Leave out every point to which another is at least as accurate and no dearer; the rest by ascending GFLOPs."""
    front: list[OperatingPoint] = []
    for point in sorted(points, key=lambda point: (point.gflops, -point.miou)):
        if not front or point.miou > front[-1].miou:
            front.append(point)
    return front


def spread_evenly(front: Sequence[OperatingPoint], count: int) -> tuple[OperatingPoint, ...]:
    """Choose `count` points, the first and the last among them, with the least sum of squared gaps in GFLOPs."""
    if len(front) <= count:
        return tuple(front)
    best = {0: (0.0, (0,))}  # of each point, the best choice that ends with it: sum of squared gaps, places
    for _ in range(count - 1):
        best = {
            end: min((cost + (front[end].gflops - front[last].gflops) ** 2, (*places, end))
                     for last, (cost, places) in best.items() if last < end)
            for end in range(min(best) + 1, len(front))
        }  # fmt: skip
    return tuple(front[place] for place in best[len(front) - 1][1])


def points_source(sweep: Sweep) -> PointsSource:
    """Say what the sweep measured its points with."""
    subject = sweep.subject
    return PointsSource(
        subject.model, subject.model_sha256, subject.dataset, subject.split, subject.frames, subject.inference,
        subject.backend, subject.precision,
    )  # fmt: skip


def points_markdown(points: Sequence[OperatingPoint]) -> str:
    """Return the model card's table."""
    columns = ['operating point', 'mIoU %', 'GFLOPs', 'of the dearest', 'tokens in → after pruning']
    rows = [
        [point.name, f'{point.miou:.2f}', f'{point.gflops:.2f}', f'{100 * point.gflops / points[-1].gflops:.0f} %',
         format_tokens(point.tokens)]
        for point in points
    ]  # fmt: skip
    return format_table(columns, rows, markdown=True, names=len(columns)) + '\n'


def _measured_point(row: SweepRow, spec: ModelSpec) -> OperatingPoint:
    """Turn a row into a point, in as many digits as mean anything."""
    tokens = {stage: round(count, 2) for stage, count in row.tokens_mean.items()}
    budget = row.point.budget(spec.budget)
    return make_point(spec, Variant.parse(row.point.variant), budget, round(row.miou, 3), round(row.gflops_mean, 4),
                      tokens)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('sweep', type=Path, metavar='SWEEP.json', help='what `hybrid_seg sweep` wrote')
    parser.add_argument('--model', type=Path, required=True, help='model specification (YAML) that was swept')
    parser.add_argument('--count', type=int, default=6, help='number of points (default: %(default)s)')
    parser.add_argument('--min-miou', type=float, default=0.0, metavar='PERCENT',
                        help='leave out what is less accurate')
    parser.add_argument('--output', type=Path, help='table to write (default: NAME.points.yaml beside the model)')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    sweep = Sweep.load_json(args.sweep)
    source = points_source(sweep)
    spec = dataclasses.replace(ModelSpec.load(args.model), inference=source.inference)
    source.check_model(spec)
    points = choose_points(sweep, spec, args.count, args.min_miou)
    output = args.output or default_points_path(args.model)
    write_text(output, format_operating_points(source, points))
    print(points_markdown(points), end='')
    if len(points) < args.count:
        print(f'{len(points)} points instead of {args.count}: the others cost more than one that is as accurate')
    print(f'written to {output}')
    return 0
