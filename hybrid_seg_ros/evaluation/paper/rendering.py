"""The files of `hybrid_seg paper`: the tables in three formats, the figures, and the page that has all of it."""

from __future__ import annotations

from hybrid_seg_ros.evaluation.html_page import Picture, render_page
from hybrid_seg_ros.evaluation.paper.evidence import PaperEvidence
from hybrid_seg_ros.evaluation.paper.layer_figure import draw_layers
from hybrid_seg_ros.evaluation.paper.page import make_page
from hybrid_seg_ros.evaluation.paper.results import Subject
from hybrid_seg_ros.evaluation.paper.table_files import to_csv, to_json, to_markdown

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
