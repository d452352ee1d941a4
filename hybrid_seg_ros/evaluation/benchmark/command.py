"""`hybrid_seg benchmark`: variants x backends x sizes of models, image to label map, in one run of rounds."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from hybrid_seg_ros.evaluation.benchmark.figures import bar_figure
from hybrid_seg_ros.evaluation.benchmark.machine import busy_remark, describe_cpu
from hybrid_seg_ros.evaluation.benchmark.models import ModelStore, load_frames, load_specs
from hybrid_seg_ros.evaluation.benchmark.open_rows import OpenRow, check_backends, open_rows
from hybrid_seg_ros.evaluation.benchmark.page import write_benchmark_page
from hybrid_seg_ros.evaluation.benchmark.plan import ALTERNATIVES, MEASURED, PLAIN, parse_size, plain_model, plan_rows
from hybrid_seg_ros.evaluation.benchmark.results import FEWEST_ROUNDS, Benchmark, Violation, find_violations, summarize
from hybrid_seg_ros.evaluation.benchmark.rounds import add_peak_memory, run_rounds
from hybrid_seg_ros.evaluation.pages.figures import require_matplotlib, save_figure
from hybrid_seg_ros.evaluation.pages.html_page import require_jinja2
from hybrid_seg_ros.files import check_file
from hybrid_seg_ros.inference.backends import BackendChoice
from hybrid_seg_ros.inference.pipeline_options import add_keep_argument, fixed_keep, say_what_has_no_effect, split_list
from hybrid_seg_ros.model_spec import INFERENCE_MODES, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.process_memory import limit_threads

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--model', type=Path, nargs='+', required=True, help='model specifications (YAML); one without '
                        'weights gets random ones')  # fmt: skip
    parser.add_argument('--variants', nargs='+', default=['dense', 'cts', 'hybrid@8'], metavar='VARIANT',
                        help='as in dense,cts,hybrid@8 (the default)')
    parser.add_argument('--backends', nargs='+', default=['pytorch'], metavar='BACKEND[:DTYPE]',
                        help=f'as in pytorch,onnxruntime,openvino:bfloat16; {PLAIN} is the official way to do it, '
                        f'{" and ".join(ALTERNATIVES)} what one would run instead (default: pytorch)')  # fmt: skip
    parser.add_argument('--sizes', nargs='+', default=[], metavar='HEIGHTxWIDTH',
                        help="of the network's input, as in 384x512,512x512 (default: the model's own)")
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N, for all backends (default: %(default)s)')
    add_keep_argument(parser, fixed=True)
    parser.add_argument('--images', type=Path, help='folder of images to run on (default: a street that is made up)')
    parser.add_argument('--inference', choices=INFERENCE_MODES, help="default: the model's")
    parser.add_argument('--rounds', type=int, default=30, help='(default: %(default)s)')
    parser.add_argument('--settle', type=int, default=1,
                        help='frames that are run before each timed one (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of random weights, and of the order in each round')
    parser.add_argument('--threads', type=int, help='CPU threads of each backend (default: one per core)')
    parser.add_argument('--cache-dir', type=Path, help='where graphs and engines are kept (default: in ~/.cache; those '
                        'of random weights are deleted in the end)')  # fmt: skip
    parser.add_argument('--skip-missing', action='store_true', help='leave out backends that cannot run here')
    parser.add_argument('--no-memory', action='store_true', help='do not measure peak memory')
    parser.add_argument('--no-parts', action='store_true', help='do not time the parts of the PyTorch networks')
    parser.add_argument('--check', action='store_true',
                        help='fail if a variant takes fewer GFLOPs than another and is slower')
    parser.add_argument('--json', type=Path, help='write the rows here')
    parser.add_argument('--picture', type=Path, help='draw them here, as PNG')
    parser.add_argument('--html', type=Path, help='write a page with all of it here')
    parser.add_argument('--markdown', action='store_true', help='print the table as Markdown')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    for name, least in (('rounds', FEWEST_ROUNDS if args.check else 1), ('settle', 0)):
        if getattr(args, name) < least:
            raise ValueError(f'--{name}: expected at least {least}, got {getattr(args, name)}')
    for path, option in ((args.json, '--json'), (args.picture, '--picture'), (args.html, '--html')):
        check_file(path, option)
    if args.picture or args.html:
        require_matplotlib()  # now rather than after minutes
    if args.html:
        require_jinja2()
    limit_threads(args.threads)
    sizes_hw = [parse_size(text) for text in split_list(args.sizes)]
    models = load_specs(args.model, args.inference, sizes_hw)
    specs = {model: spec for model, (_, spec) in models.items()}
    variants = [Variant.parse(name) for name in split_list(args.variants)]
    say_what_has_no_effect(args, variants)
    choices = [BackendChoice.parse(text, MEASURED) for text in split_list(args.backends)]
    plan_rows(specs, variants, choices)  # what is wrong with it is said before backends are looked for
    keys = plan_rows(specs, variants, _usable(choices, next(iter(specs.values())), args.device, args.skip_missing))
    frames = load_frames(args.images, specs, args.rounds)
    load = os.getloadavg()[0]
    if busy_remark(load):
        log.warning(busy_remark(load))

    def budget_of(spec: ModelSpec) -> TokenBudget:
        return dataclasses.replace(spec.budget, keep=fixed_keep(args.keep, spec.budget))

    with tempfile.TemporaryDirectory(prefix='hybrid_seg_benchmark_') as folder:
        store = ModelStore(models, frames, Path(folder), args.seed, args.cache_dir)
        rows = open_rows(keys, store, budget_of, args.device, args.skip_missing)
        measured = run_rounds(rows, frames, args.rounds, args.seed, args.settle, not args.no_parts)
        for row in rows:
            row.pipeline.close()
        if not args.no_memory:
            measured = add_peak_memory(measured, rows, frames, Path(folder), args.device)
    plain_models = {model: plain_model(specs, model) for model in specs}
    benchmark = Benchmark(_describe_device(rows), tuple(summarize(measured, plain_models)))
    return _report(args, benchmark, find_violations(measured), load)


def _usable(choices: list[BackendChoice], spec: ModelSpec, device: str, skip_missing: bool) -> list[BackendChoice]:
    """Return the backends that can run here; raises what keeps one from it, unless those are to be skipped."""
    problems = check_backends(choices, spec, device)
    for problem in problems.values():
        if not skip_missing:
            raise problem
        log.warning('skipped %s', problem)
    if len(problems) == len(choices):
        raise ValueError(f'no row can run here: {"; ".join(map(str, problems.values()))}')
    return [choice for choice in choices if choice not in problems]


def _report(args: argparse.Namespace, benchmark: Benchmark, violations: Sequence[Violation], load: float) -> int:
    print(benchmark.markdown() if args.markdown else benchmark.text(), end='')
    for violation in violations:
        print(f'fewer GFLOPs but slower: {violation}')
    if args.json:
        benchmark.save_json(args.json)
    if args.picture:
        save_figure(bar_figure(benchmark, benchmark.models), args.picture)
    if args.html:
        write_benchmark_page(benchmark, violations, load, args.html)
    checked = [each for each in violations if each.cheaper.backend != PLAIN]
    return 1 if args.check and checked else 0


def _describe_device(rows: Sequence[OpenRow]) -> str:
    others = dict.fromkeys(row.device for row in rows if row.device != 'cpu')
    return '; '.join([*others, describe_cpu(torch.get_num_threads())])
