"""What `hybrid_seg flops` counts: a model as its spec has it, or backbones in a form that options give."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybrid_seg_ros.evaluation.benchmark_plan import split_list
from hybrid_seg_ros.evaluation.flops import form_spec, spec_table
from hybrid_seg_ros.evaluation.paper_figures import PAPER_CLASSES, PAPER_SIZE_HW
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.model_spec import BACKBONES, Decoder, ModelSpec, TokenBudget, Variant

KEEP = 0.6
"""Fraction kept at each pruning layer where neither the options nor the model say it."""
FORM = ('head', 'stem', 'policy', 'auxiliary_head', 'refinement')
ARCHITECTURE = ('backbone', 'classes', 'decoder_layers', 'decoder_dim', *FORM)
"""Options that say what a model spec says."""


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
        merged = self.budget.merged_windows
        parts = [f'{self.name}: {len(self.spec.classes)} classes', f'{self.size_hw[0]}x{self.size_hw[1]}']
        if any(variant.merges for variant in self.variants):
            count = str(merged) if isinstance(merged, int) else f'{100 * merged:.3g} %'
            parts.append(f'{count} of the windows merged')
        if any(variant.prune_layers for variant in self.variants):
            parts.append('keep ' + ' '.join(str(keep) for keep in self.budget.keep or ()))
        return ', '.join(parts) + self.note

    def table(self, layers: bool) -> dict[str, dict[str, Any]]:
        """Count it, as `spec_table` says."""
        return spec_table(self.spec, self.size_hw, self.budget, self.variants, layers)


def chosen_subjects(args: argparse.Namespace) -> list[Subject]:
    """Return what the options name. Raises ValueError, or OSError, that says what was expected."""
    if args.model is None:
        return _of_form(args)
    refuse_options(args, ARCHITECTURE, f'--model {args.model} says what to count')
    spec = ModelSpec.load(args.model)
    size_hw = spec.network_size_hw if args.size is None else tuple(args.size)
    note = '; one crop of a sliding window' if spec.inference == 'sliding' and args.size is None else ''
    if args.keep is None and spec.budget.keep is None:
        note += " instead of the model's threshold, whose tokens depend on the image"
    return [_subject(spec.name, dataclasses.replace(spec, input_size_hw=size_hw, inference='whole'), args, note)]


def refuse_options(args: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    """Raise ValueError if any of the options was given."""
    given = ['--' + name.replace('_', '-') for name in names if getattr(args, name) not in (None, False)]
    if given:
        raise ValueError(f'{reason}: expected it without {", ".join(given)}')


def chosen_backbones(args: argparse.Namespace, default: Sequence[str]) -> list[str]:
    """Return the names of --backbone, each once, smallest first."""
    names = default if args.backbone is None else BACKBONES if 'all' in args.backbone else args.backbone
    return [name for name in BACKBONES if name in names]


def chosen_decoder(args: argparse.Namespace) -> Decoder:
    """Return the decoder of the options; the number of attention heads, which costs nothing, is 1 to fit any width."""
    return Decoder(args.decoder_dim, Decoder.layers if args.decoder_layers is None else args.decoder_layers, 1)


def _of_form(args: argparse.Namespace) -> list[Subject]:
    size_hw = PAPER_SIZE_HW if args.size is None else tuple(args.size)
    classes = PAPER_CLASSES if args.classes is None else args.classes
    form: dict[str, Any] = {name: getattr(args, name) for name in FORM if getattr(args, name) is not None}
    if args.variants and args.head in (None, 'atm'):  # auxiliary heads stand where the variants prune
        layers = {layer for name in split_list(args.variants) for layer in Variant.parse(name).prune_layers}
        form['auxiliary_layers'] = tuple(sorted(layers))
    return [
        _subject(name, form_spec(BACKBONES[name], classes, size_hw, decoder=chosen_decoder(args), **form), args)
        for name in chosen_backbones(args, ('vit_tiny',))
    ]


def _subject(name: str, spec: ModelSpec, args: argparse.Namespace, note: str = '') -> Subject:
    keep = args.keep if args.keep is not None else spec.budget.keep or (KEEP,)
    budget = choose_budget(spec.budget, keep, merged_windows=args.merged_windows)
    variants = tuple(Variant.parse(variant) for variant in split_list(args.variants or spec.legal_variants()))
    for variant in variants:
        spec.check_variant(variant)
    return Subject(name, spec, spec.input_size_hw, budget, variants, note)
