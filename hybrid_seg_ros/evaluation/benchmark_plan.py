"""Which rows a benchmark has: models x variants x backends, checked before anything is loaded or measured."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hybrid_seg_ros.evaluation.paper_form import paper_form
from hybrid_seg_ros.inference.backends import BACKENDS
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant

PLAIN = 'pytorch-plain'
"""Name of the baseline among the backends."""

MEASURED: dict[str, tuple[str, ...]] = {**BACKENDS, PLAIN: BACKENDS['pytorch']}
"""What can be measured, with the precisions of each."""


@dataclass(frozen=True)
class BackendChoice:
    """A backend and the precision that it computes in."""

    name: str
    dtype: str

    @classmethod
    def parse(cls, text: str) -> 'BackendChoice':
        """Read `openvino` (float32) or `openvino:bfloat16`. Raises ValueError that lists what is legal."""
        name, _, dtype = text.partition(':')
        if name not in MEASURED:
            raise ValueError(f'unknown backend {name!r}; legal are {", ".join(MEASURED)}')
        choice = cls(name, dtype or 'float32')
        if choice.dtype not in MEASURED[name]:
            raise ValueError(f'unknown dtype {dtype!r}; legal for {name} are {", ".join(MEASURED[name])}')
        return choice

    def __str__(self) -> str:
        return f'{self.name}:{self.dtype}'


@dataclass(frozen=True)
class RowKey:
    """What one row of the table is of."""

    model: str
    variant: str
    backend: str
    dtype: str

    def __str__(self) -> str:
        return f'{self.model} {self.variant}, {self.backend} {self.dtype}'


def split_list(words: Sequence[str]) -> list[str]:
    """Split `a,b c` into a, b and c, without repetitions."""
    return list(dict.fromkeys(part for word in words for part in word.split(',') if part))


def plan_rows(
    specs: Mapping[str, ModelSpec], variants: Sequence[Variant], choices: Sequence[BackendChoice]
) -> list[RowKey]:
    """List the rows: for each model and backend every variant. Raises ValueError for one that a model cannot run.

    Models that have the same paper's form share its plain rows: they are those of the first model that has this form
    itself, or else of the first model.
    """
    for expected, given in (('model', specs), ('variant', variants), ('backend', choices)):
        if not given:
            raise ValueError(f'expected at least one {expected}, got none')
    rows = []
    for (name, spec), choice, variant in itertools.product(specs.items(), choices, variants):
        if choice.name == PLAIN and plain_model(specs, name) != name:
            continue
        (paper_form(spec) if choice.name == PLAIN else spec).check_variant(variant)
        rows.append(RowKey(name, str(variant), choice.name, choice.dtype))
    return rows


def plain_model(specs: Mapping[str, ModelSpec], name: str) -> str:
    """Return the model whose plain rows are those of the model `name` as well."""
    shared = [other for other, spec in specs.items() if _architecture(spec) == _architecture(specs[name])]
    return next((other for other in shared if specs[other] == paper_form(specs[other])), shared[0])


def _architecture(spec: ModelSpec) -> ModelSpec:
    """Return what of a model's paper's form decides how long it takes."""
    return dataclasses.replace(
        paper_form(spec), name='', weights=None, sha256=None, variant=Variant(), budget=TokenBudget()
    )
