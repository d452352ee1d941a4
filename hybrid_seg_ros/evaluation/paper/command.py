"""`hybrid_seg paper`: the paper's tables and figures for a model and a data set, in a folder with a page."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.evaluate import add_model_and_dataset_arguments, open_samples
from hybrid_seg_ros.evaluation.benchmark.machine import describe_cpu
from hybrid_seg_ros.evaluation.benchmark.models import ModelStore
from hybrid_seg_ros.evaluation.benchmark.open_rows import check_backends, open_rows
from hybrid_seg_ros.evaluation.benchmark.plan import SizedModel, plan_rows
from hybrid_seg_ros.evaluation.pages.figures import require_matplotlib
from hybrid_seg_ros.evaluation.pages.html_page import Picture, render_page, require_jinja2
from hybrid_seg_ros.evaluation.paper.layers import draw_layers, measure_layers
from hybrid_seg_ros.evaluation.paper.page import make_page
from hybrid_seg_ros.evaluation.paper.tables import (
    PaperSetup,
    PaperTables,
    inputs_per_image,
    measure_rows,
    to_csv,
    to_json,
    to_markdown,
)
from hybrid_seg_ros.evaluation.paper.token_figures import TokenFigures, draw_token_figures, find_samples
from hybrid_seg_ros.files import check_folder, write_files
from hybrid_seg_ros.inference.backends import BACKENDS, BackendChoice
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend, torch_device
from hybrid_seg_ros.inference.pipeline import check_operating_point, choose_budget
from hybrid_seg_ros.inference.pipeline_options import add_pruning_arguments
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, ModelSpec, ModelSpecError, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.process_memory import limit_threads

TABLES, PAGE = 'tables.md', 'index.html'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model_and_dataset_arguments(parser, '; one without weights gets random ones')
    parser.add_argument('--output', type=Path, default=Path('out/paper'), help='folder of the page, tables and figures '
                        '(default: %(default)s)')  # fmt: skip
    parser.add_argument('--backend', default='pytorch', metavar='BACKEND[:DTYPE]',
                        help=f'of the tables: {", ".join(BACKENDS)}, as in openvino:bfloat16 (default: %(default)s); '
                        'layers are timed, and tokens drawn, in PyTorch and float32')  # fmt: skip
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N; onnxruntime also takes tensorrt')
    add_pruning_arguments(parser)
    parser.add_argument('--rounds', type=int, default=30, help='of timing (default: %(default)s)')
    parser.add_argument('--images', nargs='+', metavar='NAME',
                        help='samples that figure 1.2 shows (default: some that are spread over the split)')
    parser.add_argument('--threads', type=int, help='CPU threads of each backend (default: one per core)')
    parser.add_argument('--cache-dir', type=Path, help='where graphs and engines are kept (default: in ~/.cache)')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    require_matplotlib()  # now rather than after minutes
    require_jinja2()
    choice = BackendChoice.parse(args.backend)
    check_folder(args.output)
    if args.rounds < 1:
        raise ValueError(f'--rounds: expected at least 1, got {args.rounds}')
    limit_threads(args.threads)
    tables, figures = measure(args, choice)
    files = render_files(tables, figures)
    write_files(args.output, files)
    print(files[TABLES].decode(), end='')
    print(f'wrote {args.output / PAGE}')
    return 0


def measure(args: argparse.Namespace, choice: BackendChoice) -> tuple[PaperTables, TokenFigures]:
    """Measure and draw everything. Raises ValueError or OSError, before that, for what is wrong with the options."""
    spec = ModelSpec.load(args.model)
    budget = choose_budget(spec.budget, args.keep, args.threshold)
    variants = [Variant.parse(name) for name in spec.legal_variants()]
    for variant in variants:
        check_operating_point(spec, variant, budget)
    dataset, frames = open_samples(args, spec)
    if args.images is not None:
        find_samples(dataset, frames, args.images)
    for problem in check_backends([choice], spec, args.device).values():
        raise problem
    images = frames_for_timing(dataset, frames, args.rounds)
    model = SizedModel(spec.name, spec.network_size_hw)
    device = pytorch_device(args.device)
    with tempfile.TemporaryDirectory(prefix='hybrid_seg_paper_') as folder:
        store = ModelStore({model: (args.model, spec)}, {model: images}, Path(folder), 0, args.cache_dir)
        opened = open_rows(plan_rows({model: spec}, variants, [choice]), store, lambda spec: budget, args.device)
        rows, slower = measure_rows(opened, dataset, args.limit, images, args.rounds)
        opened[0].pipeline.close()  # they share one backend
        network = load_model(opened[0].model.spec)
        backend = TorchBackend(network, device)  # makes the network ready for inference
        budgets = {each.variant: mean_budget(spec, each.variant, budget, row.tokens)
                   for each, row in zip(opened, rows)}  # fmt: skip
        layers = measure_layers(network, budgets, device, args.rounds)
        # with a fixed keep every image would lose as many tokens
        threshold = choose_budget(budget, threshold=budget.threshold)
        figures = draw_token_figures(backend, spec, threshold, dataset, frames, args.images)
        backend.close()
    setup = PaperSetup(
        model=spec.name, weights=opened[0].model.weights, size_hw=spec.network_size_hw,
        sliding=spec.inference == 'sliding', classes=len(spec.classes), dataset=args.dataset, split=args.split,
        frames=frames, backend=choice.name, dtype=choice.dtype, device=_describe(opened[0].device),
        parts_device=_describe(backend.device_name), rounds=args.rounds, pruning=describe_pruning(budget),
        threshold=budget.threshold,
    )  # fmt: skip
    return PaperTables(setup, tuple(rows), tuple(layers), missing_variants(spec), tuple(slower)), figures


def frames_for_timing(dataset: SegmentationDataset, frames: int, rounds: int) -> list[np.ndarray]:
    """Return images, at most one a round, spread over the first `frames` of the dataset."""
    indices = np.unique(np.linspace(0, frames - 1, num=min(frames, rounds)).astype(int))
    return [dataset[index].image for index in indices.tolist()]


def pytorch_device(name: str) -> torch.device:
    """Return PyTorch's device for what runs in PyTorch beside a backend on `name`: the CPU if it does not see that."""
    try:
        return torch_device(name)
    except ValueError:
        return torch.device('cpu')


def mean_budget(spec: ModelSpec, variant: Variant, budget: TokenBudget, tokens: Mapping[str, float]) -> TokenBudget:
    """Return the fixed keep that leaves as many tokens per network input as were left on average.

    `tokens` are the mean counts per image by stage, as in EvaluationResult.
    """
    inputs = inputs_per_image(spec, tokens)
    kept = tuple(max(1, round(tokens[f'kept@{layer}'] / inputs)) for layer in variant.prune_layers)
    return dataclasses.replace(budget, keep=kept or None)


def missing_variants(spec: ModelSpec) -> dict[str, str]:
    """Say of each of the paper's variants that the model cannot run why it cannot."""
    reasons = {}
    for name in PAPER_VARIANTS:
        try:
            spec.check_variant(Variant.parse(name))
        except ModelSpecError as error:
            reasons[name] = str(error)
    return reasons


def describe_pruning(budget: TokenBudget) -> str:
    """Say by what rule tokens leave."""
    if budget.keep is None:
        return f'above a confidence of {budget.threshold:g} (the {budget.keep_per_class} surest of a class stay)'
    return f'the surest first, until so many stay at a pruning layer: {", ".join(map(str, budget.keep))}'


def _describe(device: str) -> str:
    return describe_cpu(torch.get_num_threads()) if device == 'cpu' else device


def render_files(tables: PaperTables, figures: TokenFigures) -> dict[str, bytes]:
    """Return the content of each file by its name."""
    setup = tables.subject
    title = (f'{setup.model} on {setup.dataset} {setup.split}: one network input of {setup.size_hw[0]}x'
             f'{setup.size_hw[1]}, tokens as on average\nms: PyTorch float32, {setup.parts_device}')  # fmt: skip
    layers_png = draw_layers(tables.layers, title)
    return {
        **{name: Picture.of_rgb(sheet).data for name, sheet in figures.sheets().items()},
        'figure_1_3_layers.png': layers_png,
        'tables.json': to_json(tables, figures).encode(),
        'tables.csv': to_csv(tables).encode(),
        TABLES: to_markdown(tables).encode(),
        PAGE: render_page(make_page(tables, layers_png, figures)).encode(),
    }
