"""Milliseconds of a model's parts, and of those of other models beside them, in one run."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tool import count, run_tool

from hybrid_seg_ros.evaluation.benchmark.machine import describe_cpu
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.pipeline_options import add_keep_argument, fixed_keep, say_what_has_no_effect
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.process_memory import limit_threads

if TYPE_CHECKING:
    from hybrid_seg_ros.network.segmenter import HybridSegmenter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('models', type=Path, nargs='+', help='model specifications (YAML); weights are not needed')
    parser.add_argument('--variants', nargs='*', default=['dense', 'cts', 'hybrid@8'], help='(default: %(default)s)')
    add_keep_argument(parser, fixed=True)
    parser.add_argument('--rounds', type=count, default=20, help='(default: %(default)s)')
    parser.add_argument('--threads', type=count, help='CPU threads of PyTorch')
    parser.add_argument('--json', type=Path, help='write the table here')


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    import torch

    from hybrid_seg_ros.network.segmenter import HybridSegmenter

    limit_threads(args.threads)
    specs = [ModelSpec.load(path) for path in args.models]
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        names = [str(path) for path in args.models]
    models = {name: HybridSegmenter(spec) for name, spec in zip(names, specs)}
    variants = [Variant.parse(name) for name in args.variants]
    say_what_has_no_effect(args, variants)
    budget = dataclasses.replace(specs[0].budget, keep=fixed_keep(args.keep, specs[0].budget))
    table = time_parts(models, variants, budget, args.rounds)
    print(f'milliseconds, median of {args.rounds} interleaved rounds, float32; {describe_cpu(torch.get_num_threads())}')
    for name, row in table.items():
        print(name)
        for part, milliseconds in row.items():
            print(f'  {part:<32}{milliseconds:9.2f}')
    if args.json:
        write_json(args.json, table)
    return 0


def time_parts(
    models: dict[str, HybridSegmenter], variants: Sequence[Variant], budget: TokenBudget, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each part of each model, batch 1, on the CPU, without pre- and postprocessing.

    Each of `rounds` rounds runs every part of every model once, so that a busy machine slows all alike.
    """
    from hybrid_seg_ros.evaluation.benchmark.network_parts import parts_of
    from hybrid_seg_ros.evaluation.benchmark.rounds import run_interleaved, timed_call
    from hybrid_seg_ros.network.inference_form import prepare_for_inference

    parts = {(name, part): timed_call(call, settle=0) for name, model in models.items() for part, call in
             parts_of(prepare_for_inference(model.eval()), variants, budget).items()}  # fmt: skip
    for first in parts.values():
        first(0)
    table: dict[str, dict[str, float]] = {name: {} for name in models}
    for (name, part), times_ms in run_interleaved(parts, rounds, seed=0).items():
        table[name][part] = statistics.median(times_ms)
    return table


if __name__ == '__main__':
    sys.exit(run_tool(sys.modules[__name__]))
