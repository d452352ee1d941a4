"""`hybrid_seg paper`: the paper's tables and figures for a model and a data set, in a folder with a page."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import torch

from hybrid_seg_ros.data.registry import add_dataset_arguments, open_dataset
from hybrid_seg_ros.data.segmentation_dataset import FileDataset
from hybrid_seg_ros.evaluation.benchmark_models import ModelStore
from hybrid_seg_ros.evaluation.benchmark_open import check_backends
from hybrid_seg_ros.evaluation.benchmark_plan import BackendChoice, RowKey
from hybrid_seg_ros.evaluation.evaluate_dataset import check_classes, count_frames
from hybrid_seg_ros.evaluation.figures import require_matplotlib
from hybrid_seg_ros.evaluation.html_page import render_page, require_jinja2
from hybrid_seg_ros.evaluation.machine import describe_cpu
from hybrid_seg_ros.evaluation.paper.image_choice import find_samples
from hybrid_seg_ros.evaluation.paper.layer_costs import measure_layers
from hybrid_seg_ros.evaluation.paper.layer_figure import draw_layers
from hybrid_seg_ros.evaluation.paper.measured_rows import measure_rows
from hybrid_seg_ros.evaluation.paper.page import make_page
from hybrid_seg_ros.evaluation.paper.picture_sheet import jpg_bytes
from hybrid_seg_ros.evaluation.paper.results import PaperTables, Subject
from hybrid_seg_ros.evaluation.paper.table_files import to_csv, to_json, to_markdown
from hybrid_seg_ros.evaluation.paper.token_pictures import draw_token_figures
from hybrid_seg_ros.evaluation.paper.variants import (
    check_variants,
    frames_for_timing,
    left_out,
    mean_budget,
    open_variants,
    pytorch_device,
)
from hybrid_seg_ros.evaluation.result_folder import check_folder, write_files
from hybrid_seg_ros.inference.backends import BACKENDS
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend
from hybrid_seg_ros.inference.operating_point import keep_value
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget
from hybrid_seg_ros.network.checkpoint import load_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--model', type=Path, required=True, help='model specification (YAML); one without weights '
                        'gets random ones')  # fmt: skip
    add_dataset_arguments(parser)
    parser.add_argument('--split', default='val')
    parser.add_argument('--output', type=Path, default=Path('out/paper'), help='folder of the page, tables and figures '
                        '(default: %(default)s)')  # fmt: skip
    parser.add_argument('--backend', default='pytorch', metavar='BACKEND[:DTYPE]',
                        help=f'of the tables: {", ".join(BACKENDS)}, as in openvino:bfloat16 (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N; onnxruntime also takes tensorrt')
    parser.add_argument('--keep', type=keep_value, nargs='+', help='tokens kept at each pruning layer: a count, or a '
                        "fraction (default: as the model's budget has it)")  # fmt: skip
    parser.add_argument('--threshold', type=float, help='confidence above which tokens leave')
    parser.add_argument('--limit', type=int, help='only the first images')
    parser.add_argument('--rounds', type=int, default=30, help='of timing (default: %(default)s)')
    parser.add_argument('--images', nargs='+', metavar='NAME',
                        help='samples that figure 1.2 shows (default: some that are spread over the split)')
    parser.add_argument('--threads', type=int, help='CPU threads of each backend (default: one per core)')
    parser.add_argument('--cache-dir', type=Path, help='where graphs and engines are kept (default: in ~/.cache)')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    require_matplotlib()  # now rather than after minutes
    require_jinja2()
    _check_numbers(args)
    check_folder(args.output)
    if args.threads:
        os.environ['OMP_NUM_THREADS'] = str(args.threads)  # the other backends read it
        torch.set_num_threads(args.threads)
    spec = ModelSpec.load(args.model)
    choice = parse_backend(args.backend)
    budget = choose_budget(spec.budget, args.keep, args.threshold)
    check_variants(spec, budget)
    dataset = open_dataset(args.dataset, args.root, args.split)
    check_classes(spec, dataset)
    if args.images:
        find_samples(dataset, count_frames(dataset, args.limit), args.images)
    for problem in check_backends([choice], spec, args.device).values():
        raise problem
    files = make_files(args, spec, choice, budget, dataset)
    write_files(args.output, files)
    print(files['tables.md'].decode(), end='')
    print(f'wrote {args.output / "index.html"}')
    return 0


def make_files(
    args: argparse.Namespace, spec: ModelSpec, choice: BackendChoice, budget: TokenBudget, dataset: FileDataset
) -> dict[str, bytes]:
    """Measure and draw everything, and return the files of the folder by name."""
    frames = count_frames(dataset, args.limit)
    images = frames_for_timing(dataset, frames, args.rounds)
    threshold = choose_budget(spec.budget, threshold=args.threshold or spec.budget.threshold)
    device = pytorch_device(args.device)
    with tempfile.TemporaryDirectory(prefix='hybrid_seg_paper_') as folder:
        key = RowKey(spec.name, spec.network_size_hw, 'dense', choice.name, choice.dtype)
        store = ModelStore(
            {key.subject: (args.model, spec)}, {key.subject: images}, Path(folder), 0, False, args.cache_dir
        )  # fmt: skip
        model = store.find(key)
        opened = open_variants(model, choice, budget, args.device)
        rows, slower = measure_rows(opened, dataset, args.limit, images, args.rounds)
        opened[0].pipeline.close()  # they share one backend
        network = load_model(model.spec)
        backend = TorchBackend(network, device)  # makes the network ready for inference
        budgets = {each.variant: mean_budget(spec, each.variant, budget, row.tokens)
                   for each, row in zip(opened, rows)}  # fmt: skip
        layers = measure_layers(network, budgets, device, args.rounds)
        figures = draw_token_figures(backend, spec, threshold, dataset, frames, args.images)
        backend.close()
    subject = Subject(
        model=spec.name, weights=model.weights, size_hw=spec.network_size_hw, sliding=spec.inference == 'sliding',
        classes=len(spec.classes), dataset=args.dataset, split=args.split, frames=frames, backend=choice.name,
        dtype=choice.dtype, device=_describe(opened[0].device), parts_device=_describe(backend.device_name),
        rounds=args.rounds, pruning=describe_pruning(budget), threshold=threshold.threshold,
    )  # fmt: skip
    tables = PaperTables(subject, tuple(rows), tuple(layers), left_out(spec), tuple(slower))
    layers_png = draw_layers(layers, _layer_title(subject))
    return {
        **{name: jpg_bytes(sheet) for name, sheet in figures.sheets().items()},
        'figure_1_3_layers.png': layers_png,
        'tables.json': to_json(tables, figures).encode(),
        'tables.csv': to_csv(tables).encode(),
        'tables.md': to_markdown(tables).encode(),
        'index.html': render_page(make_page(tables, layers_png, figures)).encode(),
    }


def parse_backend(text: str) -> BackendChoice:
    """Read a backend and its precision, as in `openvino:bfloat16`. Raises ValueError that lists what is legal."""
    if text.partition(':')[0] not in BACKENDS:
        raise ValueError(f'unknown backend {text!r}; legal are {", ".join(BACKENDS)}')
    return BackendChoice.parse(text)


def describe_pruning(budget: TokenBudget) -> str:
    """Say by what rule tokens leave."""
    if budget.keep is None:
        return f'above a confidence of {budget.threshold:g} (the {budget.keep_per_class} surest of a class stay)'
    return f'the surest first, until so many stay at a pruning layer: {", ".join(map(str, budget.keep))}'


def _layer_title(subject: Subject) -> str:
    size = f'{subject.size_hw[0]}x{subject.size_hw[1]}'
    return (f'{subject.model} on {subject.dataset} {subject.split}: one network input of {size}, tokens as on average\n'
            f'ms: PyTorch float32, {subject.parts_device}')  # fmt: skip


def _describe(device: str) -> str:
    return f'{describe_cpu()}, threads: {torch.get_num_threads()}' if device == 'cpu' else device


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ('rounds', 'threads'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name}: expected at least 1, got {value}')
