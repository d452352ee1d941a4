"""`hybrid_seg paper`: the paper's tables and figures for a model and a data set, in a folder with a page."""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch

from hybrid_seg_ros.data.registry import add_dataset_arguments, open_dataset
from hybrid_seg_ros.data.segmentation_dataset import FileDataset, SegmentationDataset
from hybrid_seg_ros.evaluation.accuracy.evaluate import check_classes, count_frames
from hybrid_seg_ros.evaluation.benchmark.machine import describe_cpu
from hybrid_seg_ros.evaluation.benchmark.models import ModelOnDisk, ModelStore
from hybrid_seg_ros.evaluation.benchmark.opening import OpenRow, check_backends
from hybrid_seg_ros.evaluation.benchmark.plan import BackendChoice, RowKey
from hybrid_seg_ros.evaluation.benchmark.results import DENSE
from hybrid_seg_ros.evaluation.pages.figures import require_matplotlib
from hybrid_seg_ros.evaluation.pages.html_page import Picture, render_page, require_jinja2
from hybrid_seg_ros.evaluation.paper.layers import draw_layers, measure_layers
from hybrid_seg_ros.evaluation.paper.page import make_page
from hybrid_seg_ros.evaluation.paper.tables import (
    PaperTables,
    Subject,
    inputs_per_image,
    measure_rows,
    to_csv,
    to_json,
    to_markdown,
)
from hybrid_seg_ros.evaluation.paper.token_figures import TokenFigures, draw_token_figures, find_samples
from hybrid_seg_ros.files import check_folder, write_files
from hybrid_seg_ros.inference.backends import BACKENDS, create_backend
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend, torch_device
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline, check_operating_point, choose_budget
from hybrid_seg_ros.inference.pipeline_options import add_pruning_arguments
from hybrid_seg_ros.inference.process_memory import keep_freed_memory
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, Keep, ModelSpec, ModelSpecError, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model


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


@dataclass(frozen=True)
class PaperOptions:
    """A model, a data set and how to measure; without `keep` and `threshold` tokens leave as the model's budget has it.

    `choice` and `device` are those of the tables: layers are timed, and tokens drawn, in PyTorch and float32. `limit`
    takes only the first images, `images` are the names of those whose merged patches are shown.
    """

    model: Path
    root: Path
    dataset: str = 'camvid'
    split: str = 'val'
    choice: BackendChoice = BackendChoice('pytorch', 'float32')
    device: str = 'cpu'
    keep: Optional[Sequence[Keep]] = None
    threshold: Optional[float] = None
    limit: Optional[int] = None
    rounds: int = 30
    images: Optional[Sequence[str]] = None
    cache_dir: Optional[Path] = None

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f'--rounds: expected at least 1, got {self.rounds}')


@dataclass(frozen=True)
class PaperEvidence:
    """The numbers of tables 1.1 and 1.2 and of figure 1.3, and the pictures of figures 1.2, 1.4 and 1.5."""

    tables: PaperTables
    figures: TokenFigures


def paper_evidence(options: PaperOptions) -> PaperEvidence:
    """Measure and draw everything. Raises ValueError or OSError, before that, for what is wrong with the options."""
    spec = ModelSpec.load(options.model)
    budget = choose_budget(spec.budget, options.keep, options.threshold)
    dataset = _checked_dataset(options, spec, budget)
    frames = count_frames(dataset, options.limit)
    images = frames_for_timing(dataset, frames, options.rounds)
    # with a fixed keep every image would lose as many tokens
    threshold = choose_budget(budget, threshold=budget.threshold)
    device = pytorch_device(options.device)
    with tempfile.TemporaryDirectory(prefix='hybrid_seg_paper_') as folder:
        model = _stored_model(options, spec, images, Path(folder))
        opened = open_variants(model, options.choice, budget, options.device)
        rows, slower = measure_rows(opened, dataset, options.limit, images, options.rounds)
        opened[0].pipeline.close()  # they share one backend
        network = load_model(model.spec)
        backend = TorchBackend(network, device)  # makes the network ready for inference
        budgets = {each.variant: mean_budget(spec, each.variant, budget, row.tokens)
                   for each, row in zip(opened, rows)}  # fmt: skip
        layers = measure_layers(network, budgets, device, options.rounds)
        figures = draw_token_figures(backend, spec, threshold, dataset, frames, options.images)
        backend.close()
    subject = _subject(options, spec, budget, frames, opened[0], backend.device_name)
    return PaperEvidence(PaperTables(subject, tuple(rows), tuple(layers), left_out(spec), tuple(slower)), figures)


def describe_pruning(budget: TokenBudget) -> str:
    """Say by what rule tokens leave."""
    if budget.keep is None:
        return f'above a confidence of {budget.threshold:g} (the {budget.keep_per_class} surest of a class stay)'
    return f'the surest first, until so many stay at a pruning layer: {", ".join(map(str, budget.keep))}'


def _checked_dataset(options: PaperOptions, spec: ModelSpec, budget: TokenBudget) -> FileDataset:
    """Open the data set, and raise what would otherwise be found after minutes."""
    check_variants(spec, budget)
    dataset = open_dataset(options.dataset, options.root, options.split)
    check_classes(spec, dataset)
    frames = count_frames(dataset, options.limit)
    if options.images is not None:
        find_samples(dataset, frames, options.images)
    for problem in check_backends([options.choice], spec, options.device).values():
        raise problem
    return dataset


def _stored_model(options: PaperOptions, spec: ModelSpec, images: Sequence[np.ndarray], folder: Path) -> ModelOnDisk:
    """Return the model as every backend can load it; one without weights gets random ones."""
    key = RowKey(spec.name, spec.network_size_hw, DENSE, options.choice.name, options.choice.dtype)
    models, frames = {key.sized_model: (options.model, spec)}, {key.sized_model: images}
    store = ModelStore(models, frames, folder, seed=0, random_weights=False, cache_dir=options.cache_dir)
    return store.find(key)


def _subject(
    options: PaperOptions, spec: ModelSpec, budget: TokenBudget, frames: int, opened: OpenRow, parts_device: str
) -> Subject:
    return Subject(
        model=spec.name, weights=opened.model.weights, size_hw=spec.network_size_hw,
        sliding=spec.inference == 'sliding', classes=len(spec.classes), dataset=options.dataset, split=options.split,
        frames=frames, backend=options.choice.name, dtype=options.choice.dtype, device=_describe(opened.device),
        parts_device=_describe(parts_device), rounds=options.rounds, pruning=describe_pruning(budget),
        threshold=budget.threshold,
    )  # fmt: skip


def _describe(device: str) -> str:
    return describe_cpu(torch.get_num_threads()) if device == 'cpu' else device


def check_variants(spec: ModelSpec, budget: TokenBudget) -> list[Variant]:
    """Return those of the paper's variants that the model can run. Raises ValueError for a budget that is none."""
    variants = [Variant.parse(name) for name in spec.legal_variants()]
    for variant in variants:
        check_operating_point(spec, variant, budget)
    return variants


def left_out(spec: ModelSpec) -> dict[str, str]:
    """Say of each of the paper's variants that the model cannot run why it cannot."""
    reasons = {}
    for name in PAPER_VARIANTS:
        try:
            spec.check_variant(Variant.parse(name))
        except ModelSpecError as error:
            reasons[name] = str(error)
    return reasons


def open_variants(model: ModelOnDisk, choice: BackendChoice, budget: TokenBudget, device: str) -> list[OpenRow]:
    """Load a model once, and return a row that is ready to run for each variant."""
    keep_freed_memory()  # as load_pipeline does
    spec = model.spec
    variants = check_variants(spec, budget)
    backend = create_backend(choice.name, spec, device, choice.dtype, cache_dir=model.cache_dir)
    backend.keep_open(len(variants))
    rows = []
    for variant in variants:
        pipeline = SegmentationPipeline(spec, backend, choice.name, choice.dtype, variant, budget)
        pipeline.warm_up()
        key = RowKey(spec.name, spec.network_size_hw, str(variant), choice.name, choice.dtype)
        rows.append(OpenRow(key, model, variant, budget, pipeline, pipeline.device_name))
    return rows


def frames_for_timing(dataset: SegmentationDataset, frames: int, rounds: int) -> list[np.ndarray]:
    """Return images, at most one a round, spread over the first `frames` of the dataset."""
    indices = np.unique(np.linspace(0, frames - 1, num=min(frames, rounds)).astype(int))
    return [dataset[index].image for index in indices.tolist()]


def mean_budget(spec: ModelSpec, variant: Variant, budget: TokenBudget, tokens: Mapping[str, float]) -> TokenBudget:
    """Return the fixed keep that leaves as many tokens per network input as were left on average.

    `tokens` are the mean counts per image by stage, as in EvaluationResult.
    """
    inputs = inputs_per_image(spec, tokens)
    kept = tuple(max(1, round(tokens[f'kept@{layer}'] / inputs)) for layer in variant.prune_layers)
    return dataclasses.replace(budget, keep=kept or None)


def pytorch_device(name: str) -> torch.device:
    """Return PyTorch's device for what runs in PyTorch beside a backend on `name`: the CPU if it does not see that."""
    try:
        return torch_device(name)
    except ValueError:
        return torch.device('cpu')


TABLES = 'tables.md'
PAGE = 'index.html'


def render_files(evidence: PaperEvidence) -> dict[str, bytes]:
    """Return the content of each file by its name."""
    tables, figures = evidence.tables, evidence.figures
    layers_png = draw_layers(tables.layers, _layer_title(tables.subject))
    return {
        **{name: Picture.of_rgb(sheet).data for name, sheet in figures.sheets().items()},
        'figure_1_3_layers.png': layers_png,
        'tables.json': to_json(tables, figures).encode(),
        'tables.csv': to_csv(tables).encode(),
        TABLES: to_markdown(tables).encode(),
        PAGE: render_page(make_page(tables, layers_png, figures)).encode(),
    }


def _layer_title(subject: Subject) -> str:
    size = f'{subject.size_hw[0]}x{subject.size_hw[1]}'
    return (f'{subject.model} on {subject.dataset} {subject.split}: one network input of {size}, tokens as on average\n'
            f'ms: PyTorch float32, {subject.parts_device}')  # fmt: skip
