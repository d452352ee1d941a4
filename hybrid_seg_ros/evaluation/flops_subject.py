"""What `hybrid_seg flops` counts: a model as its spec has it, or backbones in a form that options give."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from hybrid_seg_ros.evaluation.flops import VariantCost, count_variants, form_spec
from hybrid_seg_ros.evaluation.paper_figures import PAPER_CLASSES, PAPER_SIZE_HW
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.model_spec import BACKBONES, Decoder, Keep, ModelSpec, TokenBudget, Variant, Windows

KEEP = 0.6
"""Fraction kept at each pruning layer where neither the options nor the model say it."""
FORM = ('head', 'policy', 'auxiliary_head', 'refinement')
ARCHITECTURE = ('backbone', 'classes', 'decoder_layers', 'decoder_dim', *FORM)
"""Options that say what a model spec says."""


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
