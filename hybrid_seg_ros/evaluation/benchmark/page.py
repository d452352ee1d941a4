"""A benchmark as one HTML page: what was measured, against what one would run instead, and what it means."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from hybrid_seg_ros.evaluation.benchmark.figures import bar_figure, gflops_figure
from hybrid_seg_ros.evaluation.benchmark.machine import busy_remark
from hybrid_seg_ros.evaluation.benchmark.plan import ALTERNATIVES, BASELINES, PLAIN, SizedModel
from hybrid_seg_ros.evaluation.benchmark.results import (
    COLUMNS,
    DENSE,
    FEWEST_ROUNDS,
    NAMES,
    Benchmark,
    BenchmarkRow,
    Violation,
    times,
)
from hybrid_seg_ros.evaluation.pages.figures import figure_png
from hybrid_seg_ros.evaluation.pages.html_page import Page, Part, Picture, Section, Table, write_page
from hybrid_seg_ros.evaluation.pages.tables import fill_columns, format_number

LIBRARIES = {'torch': 'PyTorch', 'onnxruntime': 'ONNX Runtime', 'onnxruntime-gpu': 'ONNX Runtime for GPUs',
             'openvino': 'OpenVINO', 'tensorrt': 'TensorRT'}  # fmt: skip
COUNTED = (
    'Everything from the RGB image to the label map and its confidence at the size of the image: resizing, the policy '
    'network, choosing and gathering tokens, auxiliary heads, the way from class scores to labels. Not counted: '
    'reading the image file, ROS messages.',
    'All rows run in the same interleaved rounds, each once in every round, in an order that changes, on the same '
    'image. Networks are loaded, exported, compiled and warmed up before the first round.',
    f'{PLAIN} is the model in the paper\'s form, run as the official code runs it. {" and ".join(ALTERNATIVES)} are '
    'what one would run instead of this package: the same dense model with the same weights, as one graph from the '
    'image to the label map, with torch.compile in its default mode and as an ONNX export in ONNX Runtime as it comes.',
    'Ratios are quotients of medians, above 1 where the row is faster: "vs dense" with the dense variant of the same '
    f'backend, "vs plain" with {PLAIN}, dense, "vs alternative" with the faster of the two alternatives.',
)


def write_benchmark_page(benchmark: Benchmark, violations: Sequence[Violation], load: float, path: Path) -> None:
    """Write a page, whole or not at all; `load` is the machine's load average before the first round."""
    write_page(build_page(benchmark, violations, load), path)


def build_page(benchmark: Benchmark, violations: Sequence[Violation], load: float) -> Page:
    """Put the results together."""
    models = benchmark.models
    facts = (
        ('device', benchmark.device),
        ('versions', list_versions()),
        ('measured', f'{len(benchmark.rows)} rows in {benchmark.rows[0].rounds} interleaved rounds'),
        ('load average before', f'{load:.1f}'),
    )
    busy = [busy_remark(load).capitalize() + '.'] if busy_remark(load) else []
    return Page(
        'Benchmark: milliseconds from image to label map',
        (
            Section('Against what one would run instead', (_compare(benchmark),)),
            *(Section(str(model), _model_parts(benchmark, model)) for model in models),
            Section('Does every saved GFLOP save time?', _savings(benchmark, violations)),
            Section('Peak memory', [part for model in models for part in _memory(benchmark.rows_of(model))]),
            Section('What is counted', COUNTED),
        ),
        facts,
        (*busy, *benchmark.remarks()),
    )


def list_versions() -> str:
    """Name the versions of Python and of the libraries that are installed."""
    found = [f'Python {platform.python_version()}']
    for package, name in LIBRARIES.items():
        try:
            found.append(f'{name} {importlib.metadata.version(package)}')
        except importlib.metadata.PackageNotFoundError:
            continue
    return ', '.join(found)


def _compare(benchmark: Benchmark) -> Table:
    """Hold the fastest of this package against the faster alternative, for each model, size and dtype."""
    lines = []
    for model, dtype in dict.fromkeys((row.sized_model, row.dtype) for row in benchmark.rows):
        rows = [row for row in benchmark.rows_of(model) if row.dtype == dtype]
        ours = [row for row in rows if row.backend not in BASELINES]
        fastest = _fastest(ours)
        if fastest is None:
            continue
        alternative = _fastest([row for row in rows if row.backend in ALTERNATIVES])
        dense = _fastest([row for row in ours if row.variant == DENSE])
        lines.append([f'{model}, {dtype}', *map(_name_time, (alternative, dense, fastest)),
                      times(fastest.ratio_to_alternative)])  # fmt: skip
    return Table(
        ('model', 'best alternative', 'dense here', 'fastest here', 'vs alternative'), lines,
        f'The alternatives are {" and ".join(ALTERNATIVES)}: the same dense model without this package. How many times '
        'as fast the fastest is stands on the right.',
    )  # fmt: skip


def _fastest(rows: Sequence[BenchmarkRow]) -> Optional[BenchmarkRow]:
    return min(rows, key=lambda row: row.median_ms, default=None)


def _name_time(row: Optional[BenchmarkRow]) -> str:
    if row is None:
        return 'not measured'
    variant = '' if row.variant == DENSE else f'{row.variant}, '
    return f'{variant}{row.backend}: {row.median_ms:.1f} ms'


def _model_parts(benchmark: Benchmark, model: SizedModel) -> list[Part]:
    """Show the rows of one model at one size: bars, the table, the steps and the parts of the PyTorch networks."""
    rows = benchmark.rows_of(model)
    bars = Picture(figure_png(bar_figure(benchmark, [model], heading=False)),
                   'Medians; pale ends are pre- and postprocessing.', f'bars of milliseconds of {model}')  # fmt: skip
    parts = dict.fromkeys(part for row in rows for part in row.parts_ms)
    figures = {name: text for name, text in list(COLUMNS.items())[NAMES:] if name not in parts}
    parts_ms = {part.removeprefix('network.').replace('_', ' '): lambda row, part=part: format_number(
        row.parts_ms.get(part)) for part in parts}  # fmt: skip
    return [
        bars,
        Table(*fill_columns({'variant, backend': _name_row, **figures}, rows)),
        Table(
            *fill_columns({'steps, ms': _name_row, **parts_ms}, rows),
            'Upsampling and the choice of the best class belong to the network in '
            f'{" and ".join(ALTERNATIVES)}, else to postprocessing. Parts of the PyTorch network are timed alone in '
            'the same rounds; what they lack is merging, gathering tokens and writing them back.',
        ),
    ]


def _name_row(row: BenchmarkRow) -> str:
    return f'{row.variant}, {row.backend} {row.dtype}'


def _savings(benchmark: Benchmark, violations: Sequence[Violation]) -> list[Part]:
    """Say where fewer GFLOPs took more time, and draw both."""
    parts: list[Part] = [f'Fewer GFLOPs but slower: {violation}.' for violation in violations]
    rounds = benchmark.rows[0].rounds
    if rounds < FEWEST_ROUNDS:
        parts = [f'{rounds} rounds cannot tell: at least {FEWEST_ROUNDS} are needed.']
    elif not parts:
        parts = ['No variant was found that takes fewer GFLOPs than another of the same backend and is slower, by '
                 'more than chance explains.']  # fmt: skip
    for model in benchmark.models:
        caption = f'{model}. Dotted, from each dense variant to the origin: where time would fall as the GFLOPs do.'
        figure = gflops_figure(benchmark.rows_of(model))
        parts.append(Picture(figure_png(figure), caption, f'milliseconds over GFLOPs of {model}'))
    return parts


def _memory(rows: Sequence[BenchmarkRow]) -> list[Part]:
    """Return peak memory as a table of backends by variants; a second one for the GPU's where there is any."""
    variants = list(dict.fromkeys(row.variant for row in rows))
    backends = list(dict.fromkeys((row.backend, row.dtype) for row in rows))
    tables: list[Part] = []
    for field, what in (('peak_memory_mb', 'MiB of a process'), ('peak_device_memory_mb', 'MiB on the GPU')):
        found = {(row.backend, row.dtype, row.variant): getattr(row, field) for row in rows}
        if any(value is not None for value in found.values()):
            cells = [[' '.join(backend), *(format_number(found.get((*backend, variant)), 0) for variant in variants)]
                     for backend in backends]  # fmt: skip
            tables.append(Table((f'{rows[0].sized_model}, {what}', *variants), cells))
    return tables or [f'{rows[0].sized_model}: not measured.']
