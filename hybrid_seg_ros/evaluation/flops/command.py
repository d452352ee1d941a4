"""`hybrid_seg flops`: what each variant costs, everything counted, in fvcore's convention."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from hybrid_seg_ros.evaluation.benchmark.plan import split_list
from hybrid_seg_ros.evaluation.flops.count import VariantCost, count_variants, form_spec, used_components
from hybrid_seg_ros.evaluation.flops.figure import draw_flops
from hybrid_seg_ros.evaluation.flops.paper import PAPER_CLASSES, PAPER_GFLOPS, PAPER_SIZE_HW
from hybrid_seg_ros.evaluation.flops.paper_comparison import (
    KEEP_LABEL,
    PAPER_LABEL,
    PaperComparison,
    compare_with_paper,
    general_notes,
)
from hybrid_seg_ros.evaluation.pages.tables import format_gflops, format_table
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.inference.pipeline_options import (
    add_keep_argument,
    add_merged_windows_argument,
    say_what_has_no_effect,
)
from hybrid_seg_ros.model_spec import (
    AUXILIARY_HEADS,
    BACKBONES,
    HEADS,
    POLICIES,
    REFINEMENTS,
    Decoder,
    Keep,
    ModelSpec,
    TokenBudget,
    Variant,
    Windows,
)

KEEP = 0.6
"""Fraction kept at each pruning layer where neither the options nor the model say it."""
FORM = ('head', 'policy', 'auxiliary_head', 'refinement')
ARCHITECTURE = ('backbone', 'classes', 'decoder_layers', 'decoder_dim', *FORM)
"""Options that say what a model spec says."""
FIXED_BY_PAPER = ('model', 'classes', 'size', 'variants', 'merged_windows', 'layers', 'picture', *FORM)


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
    add_keep_argument(points, f"the model's own where it has one, else {KEEP}")
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
    subjects = chosen_subjects(_options(args))
    costs = {subject.name: subject.costs() for subject in subjects}
    counted = dict.fromkeys(name for of_variants in costs.values() for name in of_variants)
    say_what_has_no_effect(args, list(map(Variant.parse, counted)))
    if args.picture:
        draw_flops({subject.title: costs[subject.name] for subject in subjects}, args.picture)
    tables = {name: _as_dict(of_variants, args.layers) for name, of_variants in costs.items()}
    _write(args, tables if len(subjects) > 1 else tables[subjects[0].name])
    print('GFLOPs of one image, a multiply-add counted as 1\n')
    print('\n\n'.join(_format(subject, costs[subject.name], args) for subject in subjects))
    return 0


def _run_paper(args: argparse.Namespace) -> int:
    """Compare with the paper; what is counted is then what the paper has, but for the shape of the heads."""
    height, width = PAPER_SIZE_HW
    refuse_options(args, FIXED_BY_PAPER, f'--paper counts {PAPER_CLASSES} classes, {height}x{width}, in two forms')
    options = _options(args)
    if options.keep is not None and len(options.keep) > 1:
        raise ValueError(f'--paper: expected one --keep for all pruning layers, got {len(options.keep)}')
    keep = KEEP if options.keep is None else options.keep[0]
    names = options.backbones(tuple(PAPER_GFLOPS))
    compared = [compare_with_paper(name, keep, options.decoder) for name in names]
    _write(args, {each.backbone: {**each.rows, 'keep': each.keeps} for each in compared})
    print(format_comparisons(compared, keep, args.markdown))
    return 0


def _options(args: argparse.Namespace) -> FlopsOptions:
    return FlopsOptions(
        **{name: getattr(args, name) for name in ('model', *ARCHITECTURE, 'keep', 'merged_windows')},
        size_hw=None if args.size is None else tuple(args.size),
        variants=tuple(Variant.parse(name) for name in split_list(args.variants or ())),
    )


def _as_dict(costs: Mapping[str, VariantCost], layers: bool) -> dict[str, Any]:
    return {variant: cost.as_dict(layers) for variant, cost in costs.items()}


def _format(subject: Subject, costs: Mapping[str, VariantCost], args: argparse.Namespace) -> str:
    parts = [subject.title, format_components(costs, args.markdown)]
    if args.layers:
        parts.append(format_layers(costs, args.markdown))
    return ('\n\n' if args.markdown or args.layers else '\n').join(parts)


def _write(args: argparse.Namespace, content: dict[str, Any]) -> None:
    if args.json:
        write_json(args.json, content)


@dataclass(frozen=True)
class FlopsOptions:
    """A model, or backbones ('all' for each) in a form, and the operating points to count; None leaves the default.

    That is the model's own, or the paper's. A model's spec says what it is made of: ValueError for both. Without
    `variants` all that are legal are counted; `keep` has one value, or one for each pruning layer.
    """

    model: Optional[Path] = None
    backbone: Optional[Sequence[str]] = None
    classes: Optional[int] = None
    decoder_layers: Optional[int] = None
    decoder_dim: Optional[int] = None
    head: Optional[str] = None
    policy: Optional[str] = None
    auxiliary_head: Optional[str] = None
    refinement: Optional[str] = None
    size_hw: Optional[tuple[int, int]] = None
    variants: tuple[Variant, ...] = ()
    keep: Optional[Sequence[Keep]] = None
    merged_windows: Union[Keep, Windows, None] = None

    def __post_init__(self) -> None:
        if self.model is not None:
            refuse_options(self, ARCHITECTURE, f'--model {self.model} says what to count')

    def backbones(self, default: Sequence[str]) -> list[str]:
        """Return the names of the backbones, each once, smallest first."""
        names = default if self.backbone is None else BACKBONES if 'all' in self.backbone else self.backbone
        return [name for name in BACKBONES if name in names]

    @property
    def decoder(self) -> Decoder:
        """The decoder; the number of attention heads, which costs nothing, is 1 to fit any width."""
        return Decoder(self.decoder_dim, Decoder.layers if self.decoder_layers is None else self.decoder_layers, 1)


@dataclass(frozen=True)
class Subject:
    """A model without its weights, the size of one network input, the tokens that go on, and the variants."""

    name: str
    spec: ModelSpec
    size_hw: tuple[int, int]
    budget: TokenBudget
    variants: tuple[Variant, ...]
    note: str = ''

    @property
    def title(self) -> str:
        """Say in one line what the counts are of."""
        parts = [f'{self.name}: {len(self.spec.classes)} classes', f'{self.size_hw[0]}x{self.size_hw[1]}']
        if any(variant.merges for variant in self.variants):
            shares = [(side, str(n) if isinstance(n, int) else f'{100 * n:.3g} %') for side, n in self.budget.windows]
            several = len(shares) > 1
            merged = (f'{share} of the {f"{side}x{side} " if several else ""}windows' for side, share in shares)
            parts.append(' and '.join(merged) + ' merged')
        if any(variant.prune_layers for variant in self.variants):
            parts.append('keep ' + ' '.join(str(keep) for keep in self.budget.keep or ()))
        return ', '.join(parts) + self.note

    def costs(self) -> dict[str, VariantCost]:
        """Count it, in each variant by name."""
        return count_variants(self.spec, self.size_hw, self.budget, self.variants)


def chosen_subjects(options: FlopsOptions) -> list[Subject]:
    """Return what the options name. Raises ValueError, or OSError, that says what was expected."""
    if options.model is None:
        return _of_form(options)
    spec = ModelSpec.load(options.model)
    size_hw = options.size_hw or spec.network_size_hw
    note = '; one crop of a sliding window' if spec.inference == 'sliding' and options.size_hw is None else ''
    if options.keep is None and spec.budget.keep is None:
        note += " instead of the model's threshold, whose tokens depend on the image"
    return [_subject(spec.name, dataclasses.replace(spec, input_size_hw=size_hw, inference='whole'), options, note)]


def refuse_options(options: object, names: Sequence[str], reason: str) -> None:
    """Raise ValueError if any of the options, which are attributes, was given."""
    given = ['--' + name.replace('_', '-') for name in names if getattr(options, name) not in (None, False)]
    if given:
        raise ValueError(f'{reason}: expected it without {", ".join(given)}')


def _of_form(options: FlopsOptions) -> list[Subject]:
    size_hw = options.size_hw or PAPER_SIZE_HW
    classes = PAPER_CLASSES if options.classes is None else options.classes
    form: dict[str, Any] = {name: getattr(options, name) for name in FORM if getattr(options, name) is not None}
    if options.variants and options.head in (None, 'atm'):  # auxiliary heads stand where the variants prune
        form['auxiliary_layers'] = tuple(sorted({layer for each in options.variants for layer in each.prune_layers}))
    if isinstance(options.merged_windows, tuple):  # the policy scores windows of these sizes
        form['window_sizes'] = {2, *(side for side, _ in options.merged_windows)}
    return [
        _subject(name, form_spec(BACKBONES[name], classes, size_hw, decoder=options.decoder, **form), options)
        for name in options.backbones(('vit_tiny',))
    ]


def _subject(name: str, spec: ModelSpec, options: FlopsOptions, note: str = '') -> Subject:
    keep = options.keep if options.keep is not None else spec.budget.keep or (KEEP,)
    budget = choose_budget(spec.budget, keep, merged_windows=options.merged_windows)
    variants = options.variants or tuple(Variant.parse(variant) for variant in spec.legal_variants())
    spec.check_windows(budget)
    for variant in variants:
        spec.check_variant(variant)
    return Subject(name, spec, spec.input_size_hw, budget, variants, note)


def format_components(costs: Mapping[str, VariantCost], markdown: bool = False) -> str:
    """Return a line per variant: tokens entering and kept, GFLOPs per component that any variant has, total."""
    used = used_components(costs.values())
    lines = []
    for name, cost in costs.items():
        tokens = ' → '.join(str(count) for count in (cost.tokens, *(count for _, count in cost.kept)))
        share = f'{100 * cost.gflops / costs["dense"].gflops:.0f} %' if 'dense' in costs else '–'
        gflops = cost.counts.gflops()
        counts = [format_gflops(gflops[component] or None) for component in used]
        lines.append([name, tokens, *counts, format_gflops(cost.gflops), share])
    columns = ['variant', 'tokens', *(name.replace('_', ' ') for name in used), 'total', 'of dense']
    return format_table(columns, lines, markdown)


def format_layers(costs: Mapping[str, VariantCost], markdown: bool = False) -> str:
    """Return a line per step, in order, with a column of GFLOPs per variant."""
    columns = [cost.gflops_by_step() for cost in costs.values()]
    lines = [[step, *(format_gflops(column.get(step)) for column in columns)] for step in ordered_steps(columns)]
    lines.append(['total', *(format_gflops(cost.gflops) for cost in costs.values())])
    return format_table(['step', *costs], lines, markdown)


def ordered_steps(columns: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the steps of all variants, which are the keys, each once, in the order in which they run."""
    steps: list[str] = []
    for column in columns:
        position = 0
        for step in column:
            if step not in steps:
                steps.insert(position, step)
            position = steps.index(step) + 1
    return steps


def format_comparisons(comparisons: Sequence[PaperComparison], keep: Keep, markdown: bool = False) -> str:
    """Return a table per backbone with a column per variant, each with its note, and what holds for all below."""
    tables = [_format_comparison(comparison, markdown) for comparison in comparisons]
    notes = [f'- {note}' for note in general_notes(keep)]
    return '\n\n'.join([*tables, '\n'.join(notes)])


def _format_comparison(comparison: PaperComparison, markdown: bool) -> str:
    variants = list(next(iter(comparison.rows.values())))
    lines = [
        [label, *(f'{row[name]:.1f}' if label == PAPER_LABEL else format_gflops(row[name]) for name in variants)]
        for label, row in comparison.rows.items()
    ]
    keeps = [comparison.keeps.get(name) for name in variants]
    lines.append([KEEP_LABEL, *('–' if keep is None else f'{keep:.2f}' for keep in keeps)])
    table = format_table(['GFLOPs, ' + comparison.backbone, *variants], lines, markdown)
    return f'{table}\n\n{comparison.note}'
