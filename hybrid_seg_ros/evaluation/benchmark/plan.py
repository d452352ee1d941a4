"""Which rows a benchmark has: models x variants x backends, checked before anything is loaded or measured."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hybrid_seg_ros.evaluation.flops.paper import paper_form
from hybrid_seg_ros.inference.backends import BACKENDS, BackendChoice
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant

PLAIN = 'pytorch-plain'
"""Name of the baseline among the backends."""

TORCH_COMPILE, ONNXRUNTIME_PLAIN = 'torch-compile', 'onnxruntime-plain'
ALTERNATIVES = (TORCH_COMPILE, ONNXRUNTIME_PLAIN)
"""What one would run instead of this package: the same dense model, compiled or exported whole."""

BASELINES = (PLAIN, *ALTERNATIVES)
"""What is there to be compared with; whole frames only."""

MEASURED: dict[str, tuple[str, ...]] = {
    **BACKENDS, PLAIN: BACKENDS['pytorch'], TORCH_COMPILE: BACKENDS['pytorch'],
    ONNXRUNTIME_PLAIN: BACKENDS['onnxruntime'],
}  # fmt: skip
"""What can be measured, with the precisions of each."""


class SizedModel(NamedTuple):
    """A model at one size of the network's input."""

    model: str
    size_hw: tuple[int, int]

    def __str__(self) -> str:
        return f'{self.model} {format_size(self.size_hw)}'


@dataclass(frozen=True)
class RowKey:
    """What one row of the table is of."""

    model: str
    size_hw: tuple[int, int]
    variant: str
    backend: str
    dtype: str

    @property
    def sized_model(self) -> SizedModel:
        """The model at its size."""
        return SizedModel(self.model, self.size_hw)

    def __str__(self) -> str:
        return f'{self.sized_model} {self.variant}, {self.backend} {self.dtype}'


def format_size(size_hw: tuple[int, int]) -> str:
    """Write a size as `384x512`, height first."""
    return f'{size_hw[0]}x{size_hw[1]}'


def parse_size(text: str) -> tuple[int, int]:
    """Read `384x512`, height first. Raises ValueError for anything else."""
    match = re.fullmatch(r'(\d+)x(\d+)', text)
    if match is None:
        raise ValueError(f'sizes: expected HEIGHTxWIDTH as in 384x512, got {text!r}')
    return int(match[1]), int(match[2])


def plan_rows(
    specs: Mapping[SizedModel, ModelSpec], variants: Sequence[Variant], choices: Sequence[BackendChoice]
) -> list[RowKey]:
    """List the rows: for each model, size and backend every variant. Raises ValueError for one that cannot run.

    Models that have the same paper's form share its plain rows: they are those of the first model that has this form
    itself, or else of the first model. The alternatives have one row for each model and size, dense.
    """
    for expected, given in (('model', specs), ('variant', variants), ('backend', choices)):
        if not given:
            raise ValueError(f'expected at least one {expected}, got none')
    rows = []
    for (model, spec), choice in itertools.product(specs.items(), choices):
        if choice.name in BASELINES and spec.inference != 'whole':
            raise ValueError(f'{choice.name}: expected inference whole, got {spec.inference} ({spec.name})')
        if choice.name == PLAIN and plain_model(specs, model) != model:
            continue
        form = paper_form(spec) if choice.name == PLAIN else spec
        for variant in [Variant()] if choice.name in ALTERNATIVES else variants:
            form.check_variant(variant)
            rows.append(RowKey(*model, str(variant), choice.name, choice.dtype))
    return rows


def plain_model(specs: Mapping[SizedModel, ModelSpec], model: SizedModel) -> SizedModel:
    """Return the model whose plain rows are those of the model `model` as well."""
    shared = [other for other, spec in specs.items() if _architecture(spec) == _architecture(specs[model])]
    return next((other for other in shared if specs[other] == paper_form(specs[other])), shared[0])


def _architecture(spec: ModelSpec) -> ModelSpec:
    """Return what of a model's paper's form decides how long it takes."""
    return dataclasses.replace(
        paper_form(spec), name='', weights=None, sha256=None, variant=Variant(), budget=TokenBudget()
    )
