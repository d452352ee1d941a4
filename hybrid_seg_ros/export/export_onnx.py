"""`hybrid_seg export`: write a model as ONNX graphs for a robot, or for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Optional

from hybrid_seg_ros.inference.backends.graph_export import DTYPES, export_graphs
from hybrid_seg_ros.inference.backends.graph_info import OUTPUTS, GraphInfo
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.inference.pipeline_options import (
    add_merged_windows_argument,
    add_pruning_arguments,
    say_what_has_no_effect,
)
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model


def export_model(
    spec: ModelSpec, variant: Variant, budget: TokenBudget, path: Path, size_hw: Optional[tuple[int, int]] = None,
    batch: int = 1, precision: str = 'float32', outputs: Optional[str] = None,
) -> tuple[GraphInfo, list[Path]]:  # fmt: skip
    """Write the graphs of one operating point; return what they are, and their paths.

    `size_hw` is the network's input size (default: the spec's). `outputs` 'labels' gives a label map and its confidence
    at that size, 'scores' the class scores that this package's backends finish themselves; default: labels where one
    graph holds the whole network. Raises ValueError that says what is legal.
    """
    by_threshold = bool(variant.prune_layers) and budget.keep is None
    outputs = outputs or ('scores' if by_threshold else 'labels')
    spec = spec.with_weights_hash()
    info = GraphInfo.describe(spec, variant, budget, size_hw or spec.network_size_hw, batch, precision, outputs)
    return info, export_graphs(load_model(spec), info, path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--model', type=Path, required=True, help='model specification (YAML), or a name in models/')
    parser.add_argument('--variant', help=f'one of {", ".join(PAPER_VARIANTS)} (default: the one of the model)')
    parser.add_argument('--output', type=Path, required=True, metavar='F.onnx',
                        help='pruning by threshold makes several files: F.head.onnx, F.tail.onnx ...')  # fmt: skip
    add_pruning_arguments(parser)
    add_merged_windows_argument(parser)
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help="default: the model's own")
    parser.add_argument('--batch', type=int, default=1, help='images at once (default: %(default)s)')
    parser.add_argument('--precision', choices=tuple(DTYPES), default='float32', help='(default: %(default)s)')
    parser.add_argument('--outputs', choices=OUTPUTS,
                        help='labels: a label map and confidence, for other programs (default for one graph); '
                             'scores: class scores, as this package runs it (--graph)')  # fmt: skip
    parser.add_argument('--force', action='store_true', help='overwrite existing files')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.output.suffix != '.onnx':
        raise ValueError(f'--output: expected a name that ends in .onnx, got {args.output}')
    spec = ModelSpec.load(args.model)
    variant = spec.variant if args.variant is None else Variant.parse(args.variant)
    budget = choose_budget(spec.budget, args.keep, args.threshold, args.merged_windows)
    say_what_has_no_effect(args, [variant])
    size_hw = None if args.size is None else tuple(args.size)
    if not args.force:
        info = GraphInfo.describe(spec, variant, budget, size_hw or spec.network_size_hw)
        existing = [str(path) for path in (info.part_path(args.output, part) for part in info.parts) if path.exists()]
        if existing:
            raise ValueError(f'would overwrite {", ".join(existing)}; --force does it')
    info, written = export_model(
        spec, variant, budget, args.output, size_hw, args.batch, args.precision, args.outputs
    )  # fmt: skip
    height, width = info.input_size_hw
    print(f'{info.model} {info.variant} {info.precision}: image ({info.batch}, {height}, {width}, 3) uint8 RGB')
    stages = ', '.join([f'{info.tokens} enter', *(f'{count} after layer {layer}' for layer, count in info.kept)])
    print(f'  tokens: {info.grid_hw[0] * info.grid_hw[1]} patches, {stages}'
          + (', and as many as the threshold leaves' if info.by_threshold else ''))  # fmt: skip
    for path in written:
        print(f'  {path} ({path.stat().st_size / 1e6:.1f} MB)')
    return 0
