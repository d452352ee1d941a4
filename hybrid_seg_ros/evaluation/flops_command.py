"""`hybrid_seg flops`: what each variant costs, everything counted, in fvcore's convention."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybrid_seg_ros.evaluation.benchmark_plan import split_list
from hybrid_seg_ros.evaluation.flops import VariantCost
from hybrid_seg_ros.evaluation.flops_figure import draw_flops
from hybrid_seg_ros.evaluation.flops_report import format_comparisons, format_components, format_layers
from hybrid_seg_ros.evaluation.flops_subject import (
    ARCHITECTURE,
    FORM,
    KEEP,
    FlopsOptions,
    Subject,
    chosen_subjects,
    refuse_options,
)
from hybrid_seg_ros.evaluation.paper_figures import PAPER_CLASSES, PAPER_GFLOPS, PAPER_SIZE_HW
from hybrid_seg_ros.evaluation.paper_flops import compare_with_paper
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.pipeline_options import (
    add_keep_argument,
    add_merged_windows_argument,
    say_what_has_no_effect,
)
from hybrid_seg_ros.model_spec import AUXILIARY_HEADS, BACKBONES, HEADS, POLICIES, REFINEMENTS, Variant

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
