"""A model's table of operating points: what each costs and how accurate it is, measured beforehand.

`hybrid_seg choose-points` writes the table beside the model, as NAME.points.yaml; at run time a latency budget chooses
from it. Needs no PyTorch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Union

import yaml

from hybrid_seg_ros.inference.pipeline import check_operating_point, choose_budget
from hybrid_seg_ros.model_path import resolve_model_path
from hybrid_seg_ros.model_spec import Keep, ModelSpec, TokenBudget, Variant, Windows

VERSION = 1
"""Of the file's layout."""

HOW_TO_MAKE = 'make one with `hybrid_seg sweep` and `hybrid_seg choose-points` (docs/evaluation.md)'


@dataclass(frozen=True)
class OperatingPoint:
    """One way to run a model: a variant with a complete budget, and what came of it on a data set.

    `miou` is in per cent, `gflops` per image with everything counted (a multiply-add as 1), `tokens` the mean count per
    stage, as in TokenReport.stages.
    """

    name: str
    variant: Variant
    budget: TokenBudget
    miou: float
    gflops: float
    tokens: dict[str, float]

    def __post_init__(self) -> None:
        numbers = {'miou': self.miou, 'gflops': self.gflops, **self.tokens}
        wrong = {name: value for name, value in numbers.items() if not _is_amount(value)}
        if wrong or self.miou > 100 or self.gflops == 0:
            raise ValueError(f'{self.name}: expected miou in per cent, gflops > 0 and counts of tokens, '
                             f'got {wrong or numbers}')  # fmt: skip


@dataclass(frozen=True)
class PointsSource:
    """What the points of a table were measured with; the model must be the one that is to run."""

    model: str
    weights_sha256: str
    dataset: str
    split: str
    frames: int
    inference: str
    backend: str
    precision: str

    def check_model(self, spec: ModelSpec) -> None:
        """Raise ValueError if the points are of other weights or another kind of inference than the spec's."""
        of_model = {'model': spec.name, 'weights_sha256': spec.with_weights_hash().sha256, 'inference': spec.inference}
        for name, expected in of_model.items():
            if getattr(self, name) != expected:
                raise ValueError(f'{name}: expected that of the model, {expected}, got {getattr(self, name)}; '
                                 f'the points must be measured again: {HOW_TO_MAKE}')  # fmt: skip


def load_operating_points(path: Path, spec: ModelSpec) -> tuple[OperatingPoint, ...]:
    """Read a model's table, from the cheapest point to the dearest, each more accurate than the ones before.

    Raises FileNotFoundError, or ValueError for a file that is no such table, or not of this model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'operating points {path}: no such file; {HOW_TO_MAKE}')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        if not isinstance(content, Mapping) or content.get('version') != VERSION:
            version = content.get('version') if isinstance(content, Mapping) else type(content).__name__
            raise ValueError(f'expected a mapping with version: {VERSION}, got {version}; {HOW_TO_MAKE}')
        legal = [field.name for field in dataclasses.fields(PointsSource)]
        fields = _exactly(content, ('version', *legal, 'points'))
        PointsSource(**{name: fields[name] for name in legal}).check_model(spec)
        if not isinstance(fields['points'], list):
            raise ValueError(f'points: expected a list, got {fields["points"]!r}')
        points = tuple(_read_point(entry, spec) for entry in fields['points'])
        check_order(points)
        return points
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ValueError(f'operating points {path}: {error}') from error


def format_operating_points(source: PointsSource, points: Sequence[OperatingPoint]) -> str:
    """Return the text of a table, which `load_operating_points` reads. Raises ValueError for points out of order."""
    check_order(points)
    head = yaml.safe_dump({'version': VERSION, **dataclasses.asdict(source)}, sort_keys=False)
    entries = yaml.safe_dump([_entry(point) for point in points], sort_keys=False, default_flow_style=None, width=200)
    return f'{head}points:\n{entries}'


def default_points_path(model: Union[str, Path]) -> Path:
    """Return where a model's table lies: NAME.points.yaml beside NAME.yaml."""
    path = resolve_model_path(model)
    return path.with_name(f'{path.stem}.points.yaml')


def name_point(variant: Variant, budget: TokenBudget) -> str:
    """Name what of a budget decides, as in `hybrid@8 keep 0.6 merged 0.6`.

    Keep 1 (a token) and keep 1.0 (all of them) are equal numbers, but not the same name.
    """
    words = [str(variant)]
    if variant.prune_layers and budget.keep is not None:
        words.append('keep ' + '+'.join(map(str, heeded_keep(budget.keep, variant))))
    elif variant.prune_layers:
        words.append(f'threshold {budget.threshold}')
    if variant.merges:
        words.append(f'merged {windows_text(budget.merged_windows)}')
    return ' '.join(words)


def heeded_keep(keep: Sequence[Keep], variant: Variant) -> tuple[Keep, ...]:
    """Return what of a budget's `keep` a variant heeds: a value for each pruning layer, or one if they are the same."""
    heeded = tuple(keep)[: len(variant.prune_layers)]
    return heeded[:1] if len(set(map(str, heeded))) == 1 else heeded


def windows_text(merged_windows: Union[Keep, Windows], number_format: str = '') -> str:
    """Write a number of merged windows as `windows_value` reads it, such as 0.6 or 4:12,2:72."""
    if not isinstance(merged_windows, tuple):
        return format(merged_windows, number_format)
    return ','.join(f'{size}:{number:{number_format}}' for size, number in merged_windows)


def make_point(
    spec: ModelSpec, variant: Variant, budget: TokenBudget, miou: float, gflops: float, tokens: Mapping[str, float]
) -> OperatingPoint:
    """Return a point that the model can run. Raises ValueError if it cannot, or cannot have left these tokens."""
    check_operating_point(spec, variant, budget)
    name = name_point(variant, budget)
    stages = ['total', 'merged', *(f'kept@{layer}' for layer in variant.prune_layers)]
    if set(tokens) != set(stages):
        raise ValueError(f'{name}: tokens: expected {", ".join(stages)}, got {", ".join(map(str, tokens))}')
    rows, columns = spec.backbone.grid_hw(spec.network_size_hw)
    if spec.inference == 'whole' and tokens['total'] != rows * columns:
        raise ValueError(f'{name}: expected {rows * columns} tokens in total, as input_size_hw of the model says, got '
                         f'{tokens["total"]:g}; the points must be measured again: {HOW_TO_MAKE}')  # fmt: skip
    return OperatingPoint(name, variant, budget, miou, gflops, {stage: tokens[stage] for stage in stages})


def check_order(points: Sequence[OperatingPoint]) -> None:
    """Raise ValueError unless there are points, each dearer and more accurate than the one before."""
    if not points:
        raise ValueError('points: expected at least one, got none')
    for cheaper, dearer in pairwise(points):
        if dearer.gflops <= cheaper.gflops:
            raise ValueError(f'points: expected from the cheapest to the dearest, got {cheaper.gflops:g} GFLOPs '
                             f'({cheaper.name}) before {dearer.gflops:g} ({dearer.name})')  # fmt: skip
        if dearer.miou <= cheaper.miou:
            raise ValueError(f'points: {dearer.name} ({dearer.miou:g} %) is dearer than {cheaper.name} '
                             f'({cheaper.miou:g} %) and not more accurate; leave it out')  # fmt: skip


def _read_point(entry: Any, spec: ModelSpec) -> OperatingPoint:
    """Read one entry of `points`; merged_windows is there if the variant merges, keep or threshold if it prunes."""
    if not isinstance(entry, Mapping) or 'variant' not in entry:
        raise ValueError(f'points: expected a mapping with a variant for each, got {entry!r}')
    variant = Variant.parse(entry['variant'])
    pruning = ('keep' if 'keep' in entry else 'threshold',) if variant.prune_layers else ()
    merging = ('merged_windows',) if variant.merges else ()
    fields = _exactly(entry, ('variant', *pruning, *merging, 'miou', 'gflops', 'tokens'))
    budget = choose_budget(
        spec.budget, fields.get('keep'), fields.get('threshold'), merged_windows=fields.get('merged_windows')
    )
    if not isinstance(fields['tokens'], Mapping):
        raise ValueError(f'{variant}: tokens: expected a count for each stage, got {fields["tokens"]!r}')
    return make_point(spec, variant, budget, fields['miou'], fields['gflops'], fields['tokens'])


def _entry(point: OperatingPoint) -> dict[str, Any]:
    """Return what `_read_point` reads."""
    entry: dict[str, Any] = {'variant': str(point.variant)}
    if point.variant.prune_layers and point.budget.keep is not None:
        keep = point.budget.keep
        entry['keep'] = keep[0] if len(keep) == 1 else list(keep)
    elif point.variant.prune_layers:
        entry['threshold'] = point.budget.threshold
    if point.variant.merges:
        merged = point.budget.merged_windows
        entry['merged_windows'] = dict(merged) if isinstance(merged, tuple) else merged
    return {**entry, 'miou': point.miou, 'gflops': point.gflops, 'tokens': point.tokens}


def _is_amount(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _exactly(content: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """Return the mapping if it has these keys and no other. Raises ValueError."""
    unknown = [str(name) for name in content if name not in names]
    missing = [name for name in names if name not in content]
    missing += [name for name in names if name in content and content[name] is None]
    if unknown or missing:
        raise ValueError(f'expected the keys {", ".join(names)}; unknown: {", ".join(unknown) or "none"}, '
                         f'missing: {", ".join(missing) or "none"}')  # fmt: skip
    return content
