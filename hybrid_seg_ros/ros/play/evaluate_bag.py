"""`hybrid_seg evaluate-bag`: a recorded drive at several operating points, as numbers, figures and a page."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import fields
from pathlib import Path

from hybrid_seg_ros.evaluation.film.page import film_page
from hybrid_seg_ros.evaluation.film.report import FilmReport, RowReport
from hybrid_seg_ros.evaluation.pages.figures import require_matplotlib
from hybrid_seg_ros.evaluation.pages.html_page import render_page, require_jinja2
from hybrid_seg_ros.evaluation.pages.tables import format_tokens
from hybrid_seg_ros.files import check_file, check_folder, write_files, write_text
from hybrid_seg_ros.inference.backends import BACKENDS, BackendChoice
from hybrid_seg_ros.inference.film import MERGE_BY
from hybrid_seg_ros.inference.pipeline_options import add_merged_windows_argument, add_pruning_arguments, split_list
from hybrid_seg_ros.model_spec import Variant
from hybrid_seg_ros.ros.play.bag_evaluation import EvaluateBagOptions, evaluate_bag
from hybrid_seg_ros.ros.play.node_process import NodeError, exit_in_order, parse_parameter

DEFAULT_OUTPUT = Path('out/evaluate_bag')
REPORT, FRAMES, PAGE = 'report.json', 'frames.csv', 'index.html'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg evaluate-bag`."""
    parser.add_argument('bag', type=Path, help='rosbag2 folder, or a single .mcap or .db3 file; a damaged one is '
                        'evaluated as far as it can be read')  # fmt: skip
    parser.add_argument('--model', type=Path, help='model YAML; default: the one that comes with the package')
    parser.add_argument('--variants', nargs='+', default=[], metavar='VARIANT',
                        help="as in dense,cts,hybrid@8 (default: the model's own)")
    parser.add_argument('--backends', nargs='+', default=['pytorch'], metavar='BACKEND[:DTYPE]',
                        help=f'as in pytorch,onnxruntime:float32; of {", ".join(BACKENDS)} (default: pytorch, in '
                        'float32: figures must not depend on the machine)')  # fmt: skip
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N (default: %(default)s)')
    add_pruning_arguments(parser)
    add_merged_windows_argument(parser)
    parser.add_argument('--merge-by', nargs='+', default=['policy'], metavar='WHO',
                        help=f'who chooses these windows, a row for each: of {", ".join(MERGE_BY)} (default: policy)')
    parser.add_argument('--every', type=int, default=1, metavar='K', help='use every Kth frame only, as of a slower '
                        'camera')  # fmt: skip
    parser.add_argument('--topic', metavar='NAME', help='camera topic of the bag, where it holds several')
    truth = parser.add_mutually_exclusive_group()
    truth.add_argument('--label-topic', metavar='NAME', help='ground-truth topic of the bag: mono8 images, or PNG')
    truth.add_argument('--labels', type=Path, metavar='DIR', help='folder of ground truth: STAMP.png, with the stamp '
                       'of the image in seconds (1700000000.066666667) or nanoseconds')  # fmt: skip
    truth.add_argument('--no-labels', action='store_false', dest='with_labels',
                       help='no ground truth, even if the bag has some')  # fmt: skip
    parser.add_argument('--void', type=int, metavar='ID', help='class id of the ground truth that means none, '
                        'besides 255')  # fmt: skip
    parser.add_argument('--with-dense', action='store_true', help='compare with the dense model, too, where there is '
                        'ground truth; without any that is done anyway')  # fmt: skip
    parser.add_argument('--live', action='store_true', help='play the bag to the real node over DDS, in real time, '
                        'which drops frames that it has no time for')  # fmt: skip
    parser.add_argument('--rate', type=float, default=1.0, help='with --live: speed, 2.0 is twice as fast (default: 1)')
    parser.add_argument('--param', action='append', default=[], metavar='NAME:=VALUE',
                        help='with --live: set a parameter of the node, as in mask_size:=image')
    parser.add_argument('--limit', type=int, metavar='N', help='use the first N frames only')
    parser.add_argument('--cache-dir', type=Path, help='where graphs and engines are kept (default: in ~/.cache)')
    parser.add_argument('--output', type=Path, default=DEFAULT_OUTPUT, metavar='DIR',
                        help=f'folder for {REPORT}, {FRAMES} and {PAGE} (%(default)s)')
    parser.add_argument('--json', type=Path, metavar='OUT', help=f'write what is in {REPORT} here, too')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg evaluate-bag`; 1 if the node failed."""
    names = {each.name for each in fields(EvaluateBagOptions)}
    options = EvaluateBagOptions(**{
        **{name: value for name, value in vars(args).items() if name in names},
        'variants': tuple(map(Variant.parse, split_list(args.variants))),
        'choices': tuple(map(BackendChoice.parse, split_list(args.backends))),
        'merge_by': tuple(split_list(args.merge_by)),
        'parameters': dict(map(parse_parameter, args.param)),
    })  # fmt: skip
    require_matplotlib()  # this, and whether there is room for the results, now rather than after an hour
    require_jinja2()
    check_folder(args.output)
    check_file(args.json, '--json')
    if args.live:
        signal.signal(signal.SIGTERM, exit_in_order)
    try:
        report, best_frames = evaluate_bag(options)
    except NodeError as error:
        print(f'hybrid_seg evaluate-bag: {error}', file=sys.stderr)
        return 1
    figures = {REPORT: report.to_json(), FRAMES: report.to_csv()}
    if args.json:
        write_text(args.json, figures[REPORT])
    files = {**figures, PAGE: render_page(film_page(report, best_frames))}
    write_files(args.output, {name: text.encode() for name, text in files.items()})
    print_report(report)
    print(f'written    {", ".join(str(args.output / name) for name in files)}')
    return 0


def print_report(report: FilmReport) -> None:
    """Print the figures, a line or two for each row."""
    print(f'{report.video}: {report.frames} frames, {report.duration_s:.1f} s, {report.mode}, {report.pruning}')
    truth = 'none' if report.truth is None else f'{report.truth}, of {report.truth_frames} frames'
    print(f'ground truth: {truth}')
    if report.damage:
        print(f'DAMAGED    {report.damage}; all figures are of what could be read')
    if report.unreadable:
        print(f'UNREADABLE {len(report.unreadable)} frames, left out; the first: {report.unreadable[0]}')
    if report.unreadable_truth:
        count, first = len(report.unreadable_truth), report.unreadable_truth[0]
        print(f'UNREADABLE ground truth of {count} frames, which count as without; the first: {first}')
    for row in report.rows:
        print(f'{row.name} ({row.backend} in {row.dtype} on {row.device}): {", ".join(_figures(row))}')
        if row.live is not None:
            print(f'  {row.live}')
    if report.truth_flicker is not None:
        print(f'the ground truth itself flickers {report.truth_flicker:.2f} %')


def _figures(row: RowReport) -> list[str]:
    found = [] if row.miou is None else [f'mIoU {row.miou:.2f} % over {row.labelled_frames} frames']
    found += [] if row.agreement is None else [f'{row.agreement:.2f} % of pixels as dense']
    found += [] if row.flicker is None else [f'flicker {row.flicker:.2f} % ({row.flicker_pairs} pairs of frames)']
    found += [f'tokens {format_tokens(row.tokens_mean, " -> ")}'] if row.tokens_mean else []
    found += [] if row.gflops_mean is None else [f'{row.gflops_mean:.2f} GFLOPs']
    found += [] if row.p50_ms is None else [f'p50 {row.p50_ms:.1f} ms, p95 {row.p95_ms:.1f} ms']
    return found
