"""The page of `hybrid_seg paper`: tables and figures with what a reader must know to judge them."""

from __future__ import annotations

from collections.abc import Sequence

from hybrid_seg_ros.evaluation.flops.paper import PAPER_CLASSES, PAPER_SIZE_HW
from hybrid_seg_ros.evaluation.pages.html_page import Gallery, Page, Part, Picture, Section, Table
from hybrid_seg_ros.evaluation.paper.tables import (
    TABLE_COLUMNS,
    PaperSetup,
    PaperTables,
    paper_cells,
    paper_columns,
    table_cells,
)
from hybrid_seg_ros.evaluation.paper.token_figures import ShownImage, TokenFigures
from hybrid_seg_ros.visualization import TitledPicture

WIDE_PX, NARROW_PX = 420, 210
"""Least width of pictures side by side."""


def make_page(tables: PaperTables, layers_png: bytes, figures: TokenFigures) -> Page:
    """Lay out the page."""
    setup = tables.subject
    sections = [
        Section('Tables 1.1 and 1.2: accuracy, GFLOPs, speed', _table_parts(tables)),
        Section("Beside the paper's figures", _paper_parts(tables)),
        Section('Figure 1.3: layer by layer', _layer_parts(tables, layers_png)),
        Section('Figure 1.2: merged and single patches', _merged_parts(figures)),
        Section('Figure 1.4: easy images', _pruned_parts(figures, setup, figures.easy, 'fewest')),
        Section('Figure 1.5: hard images', _pruned_parts(figures, setup, figures.hard, 'most')),
    ]
    facts = (
        ('model', f'{setup.model}, input {setup.size_hw[0]}x{setup.size_hw[1]}, {setup.classes} classes'),
        ('weights', setup.weights),
        ('data', f'{setup.dataset} {setup.split}, {setup.frames} images'),
        ('backend', f'{setup.backend}, {setup.dtype}'),
        ('device', setup.device),
        ('tokens leave', setup.pruning),
    )
    title = f"The paper's tables and figures: {setup.model} on {setup.dataset} {setup.split}"
    return Page(title, sections, facts, _warnings(tables))


def _warnings(tables: PaperTables) -> list[str]:
    warnings = [f'Fewer GFLOPs but slower: {each}.' for each in tables.slower]
    if tables.subject.weights == 'random':
        warnings.insert(0, 'The weights are random: accuracy, and which tokens merge and leave, mean nothing here.')
    return warnings


def _table_parts(tables: PaperTables) -> list[Part]:
    setup = tables.subject
    note = (
        'GFLOPs: multiply-add = 1, mean over the images, everything counted; "without policy" leaves out the policy '
        'network, as the paper does for ViT-Tiny; for ViT-Base that cannot be told. Tokens: entering the encoder > '
        'left after each pruning layer, mean. '
        f'FPS: 1000 / ms; ms: from image to label map and confidence, median of {setup.rounds} rounds in which all '
        'variants take turns. In brackets, against dense: points of mIoU, GFLOPs in per cent, times as fast.'
    )
    parts: list[Part] = [Table(TABLE_COLUMNS, table_cells(tables.rows), note), tables.verdict()]
    return parts + [f'Left out: {reason}.' for reason in tables.missing_variants.values()]


def _paper_parts(tables: PaperTables) -> list[Part]:
    size = 'x'.join(map(str, PAPER_SIZE_HW))
    text = (
        f'The paper reports ADE20K with {PAPER_CLASSES} classes at {size}, ViT-Tiny and ViT-Base with heads '
        'and weights of its own, on an NVIDIA Jetson: not the model, the data or the machine of this page. What can be '
        'compared is each variant with its own dense one, in brackets. GFLOPs here are without the policy network, '
        'which the paper leaves out for ViT-Tiny; for ViT-Base that cannot be told. FPS here are of everything.'
    )
    return [text, Table(paper_columns(), paper_cells(tables.rows))]


def _layer_parts(tables: PaperTables, layers_png: bytes) -> list[Part]:
    setup = tables.subject
    caption = (
        'Bars: layers; orange: auxiliary heads, behind their layer; "in": embedding and policy network; "out": '
        'head, refinement, and in GFLOPs upsampling. Grey: the first variant. Third row: how many frames per second if '
        'the network ended there (log scale). Below the names: the whole network.'
    )
    note = (
        f'One input of the network ({setup.size_hw[0]}x{setup.size_hw[1]}), with as many tokens as were left on '
        'average. GFLOPs of a mean count are a little less than the mean of the GFLOPs in the table above, where the '
        f'counts differ from image to image. Milliseconds: PyTorch, float32, {setup.parts_device}, each part timed '
        f'alone in {setup.rounds} interleaved rounds, as is the whole network. Not in the parts: choosing windows '
        'and tokens, gathering them and writing them back.'
    )
    columns = ('variant', 'tokens', 'GFLOPs', 'sum of the parts, ms', 'whole network, ms')
    rows = [
        (costs.variant, ' > '.join(map(str, costs.tokens)), f'{costs.gflops:.2f}', f'{costs.parts_ms:.1f}',
         f'{costs.network_ms:.1f}')
        for costs in tables.layers
    ]  # fmt: skip
    return [Picture(layers_png, caption, 'GFLOPs, milliseconds and speed of each layer'), Table(columns, rows, note)]


def _merged_parts(figures: TokenFigures) -> list[Part]:
    if figures.merging is None:
        return ['Left out: the model has no policy network to choose the windows to merge.']
    text = f'Variant {figures.merging}: 2x2 patches that share a token are blue, patches with a token of their own red.'
    return [text, Gallery([_picture(each) for shown in figures.merged for each in shown.pictures], WIDE_PX)]


def _pruned_parts(figures: TokenFigures, setup: PaperSetup, images: Sequence[ShownImage], extreme: str) -> list[Part]:
    if figures.pruning is None:
        return ['Left out: the model cannot prune.']
    if not images:
        return ['Left out: it takes two images to tell easy from hard.']
    parts: list[Part] = [
        f'Of {setup.frames} images those with the {extreme} tokens left in the end, by variant {figures.pruning}; of '
        'images that follow each other closely, as in a video, only one. '
        f'Tokens leave above a confidence of {setup.threshold:g}, whatever rule the tables have: '
        'a fixed keep takes as many from each image. Black: pruned by then, in per cent of the tokens that entered '
        'the encoder. Network: PyTorch, float32.'
    ]
    if figures.hard and figures.hard[0].share_left == figures.easy[0].share_left:
        parts.append('Here every image has as many tokens left: these are no easier or harder than others.')
    for shown in images:
        parts.append(f'{shown.name}: as many tokens go to the end as {shown.share_left:.0f} % of the patches; mIoU of '
                     f'this image {shown.miou:.1f} %')  # fmt: skip
        parts.append(Gallery([_picture(each) for each in shown.pictures], NARROW_PX))
    return parts


def _picture(titled: TitledPicture) -> Picture:
    return Picture.of_rgb(titled.rgb, titled.title)
