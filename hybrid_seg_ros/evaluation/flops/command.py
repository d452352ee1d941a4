"""`hybrid_seg flops`: what each variant costs, everything counted, in fvcore's convention."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.evaluation.flops.count import COMPONENTS, VariantCost, count_variants, form_spec
from hybrid_seg_ros.evaluation.flops.paper import PAPER_CLASSES, PAPER_GFLOPS, PAPER_SIZE_HW
from hybrid_seg_ros.evaluation.flops.paper_comparison import (
    KEEP_LABEL,
    PAPER_LABEL,
    PaperComparison,
    compare_with_paper,
    general_notes,
)
from hybrid_seg_ros.evaluation.pages.bars import Bar, draw_bars
from hybrid_seg_ros.evaluation.pages.figures import save_figure
from hybrid_seg_ros.evaluation.pages.tables import format_gflops, format_table
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.inference.pipeline_options import (
    add_keep_argument,
    add_merged_windows_argument,
    fixed_keep,
    say_what_has_no_effect,
    split_list,
)
from hybrid_seg_ros.model_spec import (
    AUXILIARY_HEADS,
    BACKBONES,
    HEADS,
    POLICIES,
    REFINEMENTS,
    Decoder,
    ModelSpec,
    TokenBudget,
    Variant,
)

FORM = ('head', 'policy', 'auxiliary_head', 'refinement')
ARCHITECTURE = ('backbone', 'classes', 'decoder_layers', 'decoder_dim', *FORM)
"""Options that say what a model spec says."""
FIXED_BY_PAPER = ('model', 'classes', 'size', 'variants', 'merged_windows', 'layers', 'picture', *FORM)
COLORS = {
    'embedding': '#999999', 'policy': '#D55E00', 'blocks': '#0072B2', 'auxiliary_heads': '#E69F00',
    'head': '#009E73', 'refinement': '#CC79A7', 'upsampling': '#444444',
}  # fmt: skip
"""Okabe and Ito's, which people with any kind of colour blindness can tell apart."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    what = parser.add_argument_group('what to count: a model, or backbones in a form given by options')
    what.add_argument('--model', type=Path, metavar='M.yaml', help='a model spec; its weights need not be there')
    what.add_argument('--backbone', nargs='+', choices=(*BACKBONES, 'all'), metavar='NAME',
                      help=f'{", ".join(BACKBONES)} or all (default: vit_tiny; with --paper those of the paper)')
    what.add_argument('--classes', type=int, help=f'number of classes (default: {PAPER_CLASSES})')
    what.add_argument('--head', choices=HEADS, help='(default: atm)')
    what.add_argument('--decoder-layers', type=int, help='layers per decoder of the head (default: 3)')
    what.add_argument('--decoder-dim', type=int, help='channels of the ATM decoders (default: half of the backbone)')
    what.add_argument('--policy', choices=POLICIES, help='(default: efficientnet_lite0)')
    what.add_argument('--auxiliary-head', choices=AUXILIARY_HEADS, help='(default: atm)')
    what.add_argument('--refinement', choices=REFINEMENTS, help='(default: none)')
    points = parser.add_argument_group('at which operating points')
    points.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'),
                        help="input size; sides are padded to whole patches (default: 512 512, or the model's own)")
    points.add_argument('--variants', nargs='+', metavar='VARIANT', help='as dense,cts,hybrid@8 (default: all legal)')
    add_keep_argument(points, fixed=True)
    add_merged_windows_argument(points, "103/256, or the model's own")
    shown = parser.add_argument_group('what to show')
    shown.add_argument('--layers', action='store_true', help='GFLOPs layer by layer as well, in --json too')
    shown.add_argument('--paper', action='store_true', help="put our figures beside the paper's")
    shown.add_argument('--markdown', action='store_true', help='print tables as Markdown')
    shown.add_argument('--json', type=Path, metavar='OUT', help='write the tables here')
    shown.add_argument('--picture', type=Path, metavar='OUT.png', help='draw a bar per variant, divided by component')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.paper:
        return _run_paper(args)
    models = chosen_models(args)
    costs = {model.name: count_variants(model.spec, model.spec.input_size_hw, model.budget, model.variants)
             for model in models}  # fmt: skip
    say_what_has_no_effect(args, list(dict.fromkeys(variant for model in models for variant in model.variants)))
    if args.picture:
        _draw({model.title: costs[model.name] for model in models}, args.picture)
    if args.json:
        tables = {name: {variant: cost.as_dict(args.layers) for variant, cost in of_model.items()}
                  for name, of_model in costs.items()}  # fmt: skip
        write_json(args.json, tables if len(models) > 1 else tables[models[0].name])
    print('GFLOPs of one image, a multiply-add counted as 1\n')
    texts = []
    for model in models:
        parts = [model.title, format_components(costs[model.name], args.markdown)]
        parts += [format_layers(costs[model.name], args.markdown)] if args.layers else []
        texts.append(('\n\n' if args.markdown or args.layers else '\n').join(parts))
    print('\n\n'.join(texts))
    return 0


def _run_paper(args: argparse.Namespace) -> int:
    """Compare with the paper; what is counted is then what the paper has, but for the shape of the heads."""
    height, width = PAPER_SIZE_HW
    _refuse_options(args, FIXED_BY_PAPER, f'--paper counts {PAPER_CLASSES} classes, {height}x{width}, in two forms')
    if args.keep is not None and len(args.keep) > 1:
        raise ValueError(f'--paper: expected one --keep for all pruning layers, got {len(args.keep)}')
    (keep,) = fixed_keep(args.keep, TokenBudget())
    compared = [compare_with_paper(name, keep, _decoder(args)) for name in _backbones(args, PAPER_GFLOPS)]
    if args.json:
        write_json(args.json, {each.backbone: {**each.rows, 'keep': each.keeps} for each in compared})
    tables = [_format_comparison(comparison, args.markdown) for comparison in compared]
    print('\n\n'.join([*tables, '\n'.join(f'- {note}' for note in general_notes(keep))]))
    return 0


@dataclass(frozen=True)
class CountedModel:
    """A model without its weights, whose input is one of the network, the tokens that go on, and the variants."""

    name: str
    spec: ModelSpec
    budget: TokenBudget
    variants: tuple[Variant, ...]
    note: str = ''

    @property
    def title(self) -> str:
        """Say in one line what the counts are of."""
        height, width = self.spec.input_size_hw
        parts = [f'{self.name}: {len(self.spec.classes)} classes', f'{height}x{width}']
        if any(variant.merges for variant in self.variants):
            shares = [(side, str(n) if isinstance(n, int) else f'{100 * n:.3g} %') for side, n in self.budget.windows]
            several = len(shares) > 1
            merged = (f'{share} of the {f"{side}x{side} " if several else ""}windows' for side, share in shares)
            parts.append(' and '.join(merged) + ' merged')
        if any(variant.prune_layers for variant in self.variants):
            parts.append('keep ' + ' '.join(str(keep) for keep in self.budget.keep or ()))
        return ', '.join(parts) + self.note


def chosen_models(args: argparse.Namespace) -> list[CountedModel]:
    """Return what the options name: a model, or backbones in a form. Raises ValueError that says what was expected."""
    variants = tuple(Variant.parse(name) for name in split_list(args.variants or ()))
    size_hw = None if args.size is None else tuple(args.size)
    if args.model is None:
        return [_counted(name, spec, args, variants) for name, spec in _specs_of_form(args, size_hw, variants).items()]
    _refuse_options(args, ARCHITECTURE, f'--model {args.model} says what to count')
    spec = ModelSpec.load(args.model)
    note = '; one crop of a sliding window' if spec.inference == 'sliding' and size_hw is None else ''
    if args.keep is None and spec.budget.keep is None:
        note += " instead of the model's threshold, whose tokens depend on the image"
    one_input = dataclasses.replace(spec, input_size_hw=size_hw or spec.network_size_hw, inference='whole')
    return [_counted(spec.name, one_input, args, variants, note)]


def _specs_of_form(
    args: argparse.Namespace, size_hw: Optional[tuple[int, int]], variants: Sequence[Variant]
) -> dict[str, ModelSpec]:
    form: dict[str, Any] = {name: getattr(args, name) for name in FORM if getattr(args, name) is not None}
    if variants and args.head in (None, 'atm'):  # auxiliary heads stand where the variants prune
        form['auxiliary_layers'] = tuple(sorted({layer for each in variants for layer in each.prune_layers}))
    if isinstance(args.merged_windows, tuple):  # the policy scores windows of these sizes
        form['window_sizes'] = {2, *(side for side, _ in args.merged_windows)}
    classes = PAPER_CLASSES if args.classes is None else args.classes
    return {
        name: form_spec(BACKBONES[name], classes, size_hw or PAPER_SIZE_HW, decoder=_decoder(args), **form)
        for name in _backbones(args, ('vit_tiny',))
    }


def _counted(
    name: str, spec: ModelSpec, args: argparse.Namespace, variants: tuple[Variant, ...], note: str = ''
) -> CountedModel:
    budget = choose_budget(spec.budget, fixed_keep(args.keep, spec.budget), merged_windows=args.merged_windows)
    spec.check_windows(budget)
    for variant in variants:
        spec.check_variant(variant)
    return CountedModel(name, spec, budget, variants or tuple(map(Variant.parse, spec.legal_variants())), note)


def _backbones(args: argparse.Namespace, default: Iterable[str]) -> list[str]:
    """Return the names of the backbones, each once, smallest first."""
    names = default if args.backbone is None else BACKBONES if 'all' in args.backbone else args.backbone
    return [name for name in BACKBONES if name in names]


def _decoder(args: argparse.Namespace) -> Decoder:
    """Return the decoder; the number of attention heads, which costs nothing, is 1 to fit any width."""
    return Decoder(args.decoder_dim, Decoder.layers if args.decoder_layers is None else args.decoder_layers, 1)


def _refuse_options(args: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    """Raise ValueError if any of the options was given."""
    given = ['--' + name.replace('_', '-') for name in names if getattr(args, name) not in (None, False)]
    if given:
        raise ValueError(f'{reason}: expected it without {", ".join(given)}')


def format_components(costs: Mapping[str, VariantCost], markdown: bool = False) -> str:
    """Return a line per variant: tokens entering and kept, GFLOPs per component that any variant has, total."""
    used = [name for name in COMPONENTS if any(cost.gflops_of(name) for cost in costs.values())]
    lines = []
    for name, cost in costs.items():
        tokens = ' → '.join(str(count) for count in (cost.tokens, *(count for _, count in cost.kept)))
        share = f'{100 * cost.gflops / costs["dense"].gflops:.0f} %' if 'dense' in costs else '–'
        counts = [format_gflops(cost.gflops_of(component) or None) for component in used]
        lines.append([name, tokens, *counts, format_gflops(cost.gflops), share])
    columns = ['variant', 'tokens', *(name.replace('_', ' ') for name in used), 'total', 'of dense']
    return format_table(columns, lines, markdown)


def format_layers(costs: Mapping[str, VariantCost], markdown: bool = False) -> str:
    """Return a line per step, in order, with a column of GFLOPs per variant."""
    columns = [cost.gflops_by_step() for cost in costs.values()]
    lines = [[step, *(format_gflops(column.get(step)) for column in columns)] for step in _ordered_steps(columns)]
    lines.append(['total', *(format_gflops(cost.gflops) for cost in costs.values())])
    return format_table(['step', *costs], lines, markdown)


def _ordered_steps(columns: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the steps of all variants, which are the keys, each once, in the order in which they run."""
    steps: list[str] = []
    for column in columns:
        position = 0
        for step in column:
            if step not in steps:
                steps.insert(position, step)
            position = steps.index(step) + 1
    return steps


def _format_comparison(comparison: PaperComparison, markdown: bool) -> str:
    """Return a table with a column per variant, and the note on it below."""
    variants = list(next(iter(comparison.rows.values())))
    lines = [
        [label, *(f'{row[name]:.1f}' if label == PAPER_LABEL else format_gflops(row[name]) for name in variants)]
        for label, row in comparison.rows.items()
    ]
    keeps = [comparison.keeps.get(name) for name in variants]
    lines.append([KEEP_LABEL, *('–' if keep is None else f'{keep:.2f}' for keep in keeps)])
    table = format_table(['GFLOPs, ' + comparison.backbone, *variants], lines, markdown)
    return f'{table}\n\n{comparison.note}'


def _draw(tables: Mapping[str, Mapping[str, VariantCost]], path: Path) -> None:
    """Draw what variants cost, each model under its title, as a PNG: a bar per variant, divided by component."""
    panels = {}
    for title, costs in tables.items():
        dense = costs.get('dense')
        panels[title] = []
        for name, cost in costs.items():
            text = format_gflops(cost.gflops)
            text += '' if dense in (None, cost) else f'  {100 * cost.gflops / dense.gflops:.0f} % of dense'
            parts = [(COLORS[component], 1.0, cost.gflops_of(component)) for component in COMPONENTS]
            panels[title].append(Bar(name, parts, text))
    used = [name for name in COMPONENTS
            if any(cost.gflops_of(name) for costs in tables.values() for cost in costs.values())]  # fmt: skip
    legend = {name.replace('_', ' '): COLORS[name] for name in used}
    save_figure(draw_bars(panels, 'GFLOPs of one image, a multiply-add counted as 1', legend=legend), path)
