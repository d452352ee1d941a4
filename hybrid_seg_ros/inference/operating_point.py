"""Command-line options that choose backend, variant and token budget, and the pipeline they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Union

from hybrid_seg_ros.inference.backends import BACKENDS, PRECISIONS
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline, load_pipeline
from hybrid_seg_ros.model_spec import INFERENCE_MODES, PAPER_VARIANTS, Keep, Windows


def add_operating_point_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose backend, variant and token budget."""
    parser.add_argument('--variant', help=f'one of {", ".join(PAPER_VARIANTS)} (default: the one of the model)')
    parser.add_argument(
        '--keep', type=keep_value, nargs='+', help='tokens kept at each pruning layer: a count, or a fraction'
    )
    parser.add_argument('--threshold', type=float, help='confidence above which tokens leave')
    add_backend_arguments(parser)


def add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose what the network runs on, and how it sees a frame."""
    parser.add_argument('--backend', choices=BACKENDS, default='pytorch')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N; onnxruntime also takes tensorrt')
    parser.add_argument('--precision', choices=PRECISIONS, default='float32')
    parser.add_argument('--inference', choices=INFERENCE_MODES, help="default: the model's")
    parser.add_argument('--graph', type=Path, help='run this file of `hybrid_seg export`, not one made on demand')
    parser.add_argument('--cache-dir', type=Path, help='where graphs and engines are kept (default: in ~/.cache)')


def keep_value(text: str) -> Keep:
    """Read '400' as a count and '0.6' as a fraction."""
    return float(text) if '.' in text or 'e' in text.lower() else int(text)


def windows_value(text: str) -> Union[Keep, Windows]:
    """Read '72' or '0.4', a number of 2x2 windows that share a token, or one for each size, as in '4:12,2:72'."""
    try:
        if ':' not in text:
            return keep_value(text)
        pairs = (part.split(':') for part in text.split(','))
        windows = tuple((int(size), keep_value(number)) for size, number in pairs)
        if len(dict(windows)) == len(windows):
            return windows
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f'expected a number, or one for each size, as in 4:12,2:72, got {text!r}')


def open_pipeline(args: argparse.Namespace) -> SegmentationPipeline:
    """Load the pipeline that the options describe."""
    return load_pipeline(
        args.model, args.backend, args.device, args.precision, args.variant, args.keep, args.threshold,
        inference=args.inference, graph=args.graph, cache_dir=args.cache_dir,
    )  # fmt: skip
