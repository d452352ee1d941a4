"""`hybrid_seg paper`: the paper's tables and figures for a model and a data set, in a folder with a page."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from hybrid_seg_ros.data.registry import add_dataset_arguments
from hybrid_seg_ros.evaluation.benchmark_plan import BackendChoice
from hybrid_seg_ros.evaluation.figures import require_matplotlib
from hybrid_seg_ros.evaluation.html_page import require_jinja2
from hybrid_seg_ros.evaluation.paper.evidence import PaperOptions, paper_evidence
from hybrid_seg_ros.evaluation.paper.rendering import PAGE, TABLES, render_files
from hybrid_seg_ros.files import check_folder, write_files
from hybrid_seg_ros.inference.backends import BACKENDS
from hybrid_seg_ros.inference.pipeline_options import add_pruning_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--model', type=Path, required=True, help='model specification (YAML); one without weights '
                        'gets random ones')  # fmt: skip
    add_dataset_arguments(parser)
    parser.add_argument('--split', default=PaperOptions.split)
    parser.add_argument('--output', type=Path, default=Path('out/paper'), help='folder of the page, tables and figures '
                        '(default: %(default)s)')  # fmt: skip
    parser.add_argument('--backend', default='pytorch', metavar='BACKEND[:DTYPE]',
                        help=f'of the tables: {", ".join(BACKENDS)}, as in openvino:bfloat16 (default: %(default)s)')
    parser.add_argument('--device', default=PaperOptions.device,
                        help='cpu, cuda or cuda:N; onnxruntime also takes tensorrt')
    add_pruning_arguments(parser)
    parser.add_argument('--limit', type=int, help='only the first images')
    parser.add_argument('--rounds', type=int, default=PaperOptions.rounds, help='of timing (default: %(default)s)')
    parser.add_argument('--images', nargs='+', metavar='NAME',
                        help='samples that figure 1.2 shows (default: some that are spread over the split)')
    parser.add_argument('--threads', type=int, help='CPU threads of each backend (default: one per core)')
    parser.add_argument('--cache-dir', type=Path, help='where graphs and engines are kept (default: in ~/.cache)')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    require_matplotlib()  # now rather than after minutes
    require_jinja2()
    options = PaperOptions(
        model=args.model, root=args.root, dataset=args.dataset, split=args.split,
        choice=BackendChoice.parse_own(args.backend), device=args.device, keep=args.keep, threshold=args.threshold,
        limit=args.limit, rounds=args.rounds, images=args.images, cache_dir=args.cache_dir,
    )  # fmt: skip
    check_folder(args.output)
    if args.threads is not None:
        _limit_threads(args.threads)
    files = render_files(paper_evidence(options))
    write_files(args.output, files)
    print(files[TABLES].decode(), end='')
    print(f'wrote {args.output / PAGE}')
    return 0


def _limit_threads(threads: int) -> None:
    if threads < 1:
        raise ValueError(f'--threads: expected at least 1, got {threads}')
    os.environ['OMP_NUM_THREADS'] = str(threads)  # the other backends read it
    torch.set_num_threads(threads)
