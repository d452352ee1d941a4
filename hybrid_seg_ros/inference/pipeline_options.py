"""Command-line options that choose backend, variant and token budget, and the pipeline they describe."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from hybrid_seg_ros.inference.backends import AUTO, BACKENDS, PRECISIONS
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline, load_pipeline
from hybrid_seg_ros.model_spec import INFERENCE_MODES, PAPER_VARIANTS, Keep, TokenBudget, Variant, Windows

log = logging.getLogger(__name__)

USUAL_KEEP = 0.6
"""What stays at a pruning layer where a fixed number of tokens is wanted and neither user nor model names it."""


def add_operating_point_arguments(parser: argparse.ArgumentParser, compared: bool = False) -> None:
    """Declare the options that choose backend, variant and token budget; `compared` as in add_backend_arguments."""
    parser.add_argument('--variant', help=f'one of {", ".join(PAPER_VARIANTS)} (default: the one of the model)')
    add_pruning_arguments(parser)
    add_backend_arguments(parser, compared)


def add_pruning_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose which tokens leave."""
    add_keep_argument(parser)
    parser.add_argument('--threshold', type=float, metavar='P', help='confidence above which tokens leave')


def add_keep_argument(parser: 'argparse._ActionsContainer', fixed: bool = False) -> None:
    """Declare --keep, which is the same for every command; `fixed` for one that reads it with `fixed_keep`."""
    default = f"the model's own where it has one, else {USUAL_KEEP}" if fixed else "the model's own rule"
    parser.add_argument(
        '--keep', type=keep_value, nargs='+', metavar='KEEP', help='tokens that stay at a pruning layer, a count as in '
        f'400 or a fraction as in 0.6: one for all layers, or one for each (default: {default})'
    )  # fmt: skip


def add_merged_windows_argument(parser: 'argparse._ActionsContainer', default: str = "the model's own") -> None:
    """Declare --merged-windows, which is the same for every command; `default` says what None means."""
    parser.add_argument('--merged-windows', type=windows_value, metavar='WINDOWS',
                        help=f'windows that share a token, as in 103, 0.4 or 4:12,2:72 (default: {default})')


def add_backend_arguments(parser: argparse.ArgumentParser, compared: bool = False) -> None:
    """Declare the options that choose what the network runs on, and how it sees a frame.

    `compared` is for figures that are held against those of other machines: they come from PyTorch in float32 on the
    CPU unless the user names something else.
    """
    backend, device, precision = ('pytorch', 'cpu', 'float32') if compared else (AUTO, AUTO, AUTO)
    why = '; not auto: figures must not depend on the machine' if compared else ': the fastest that is here'
    parser.add_argument('--backend', choices=(AUTO, *BACKENDS), default=backend, help=f'(default: %(default)s{why})')
    parser.add_argument('--device', default=device, help='auto, cpu, cuda or cuda:N; onnxruntime also takes tensorrt '
                        '(default: %(default)s)')  # fmt: skip
    parser.add_argument('--precision', choices=(AUTO, *PRECISIONS), default=precision, help='(default: %(default)s)')
    parser.add_argument('--inference', choices=INFERENCE_MODES, help="default: the model's")
    parser.add_argument('--graph', type=Path, help='run this file of `hybrid_seg export`, not one made on demand')
    parser.add_argument('--cache-dir', type=Path, help='where graphs and engines are kept (default: in ~/.cache)')


def keep_value(text: str) -> Keep:
    """Read '400' as a count and '0.6' as a fraction; TokenBudget says which are legal. Raises ArgumentTypeError."""
    try:
        return float(text) if '.' in text or 'e' in text.lower() else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected a count as in 400 or a fraction as in 0.6, got {text!r}') from None


def fixed_keep(keep: Optional[Sequence[Keep]], budget: TokenBudget) -> tuple[Keep, ...]:
    """Return what --keep says, else the model's own, else USUAL_KEEP: with a threshold each image keeps as it likes."""
    return tuple(keep or budget.keep or (USUAL_KEEP,))


def windows_value(text: str) -> Union[Keep, Windows]:
    """Read '72' or '0.4', a number of 2x2 windows that share a token, or one for each size, as in '4:12,2:72'."""
    try:
        pairs = [part.split(':') for part in text.split(',')] if ':' in text else [['2', text]]
        windows = tuple((int(size), keep_value(number)) for size, number in pairs)
        legal = all(0 <= value <= (1 if isinstance(value, float) else value) for _, value in windows)
        if legal and len(dict(windows)) == len(windows):
            return windows if ':' in text else windows[0][1]
    except (ValueError, argparse.ArgumentTypeError):
        pass
    raise argparse.ArgumentTypeError(
        f'expected a count, a share from 0 to 1, or one of them for each size, as in 4:12,2:72, got {text!r}'
    )


def split_list(words: Sequence[str]) -> list[str]:
    """Split `a,b c` into a, b and c, without repetitions."""
    return list(dict.fromkeys(part for word in words for part in word.split(',') if part))


def open_pipeline(args: argparse.Namespace) -> SegmentationPipeline:
    """Load the pipeline that the options describe."""
    pipeline = load_pipeline(
        args.model, args.backend, args.device, args.precision, args.variant, args.keep, args.threshold,
        inference=args.inference, graph=args.graph, cache_dir=args.cache_dir,
    )  # fmt: skip
    say_what_has_no_effect(args, [pipeline.variant])
    return pipeline


def say_what_has_no_effect(options: object, variants: Sequence[Variant]) -> None:
    """Log a warning for each of the attributes keep, threshold and merged_windows that no variant heeds."""
    names = ', '.join(map(str, variants))
    layers = max((len(variant.prune_layers) for variant in variants), default=0)
    for option in ('keep', 'threshold'):
        if getattr(options, option, None) is not None and not layers:
            log.warning('--%s has no effect: %s does not prune tokens', option, names)
    if 0 < layers < len(getattr(options, 'keep', None) or ()):
        log.warning('--keep: of %d values only %d have an effect: so many pruning layers has %s',
                    len(options.keep), layers, names)  # fmt: skip
    if getattr(options, 'merged_windows', None) is not None and not any(variant.merges for variant in variants):
        log.warning('--merged-windows has no effect: %s does not merge tokens', names)
