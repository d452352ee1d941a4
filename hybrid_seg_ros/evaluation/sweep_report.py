"""What a sweep found: one row per operating point, kept as JSON, CSV and a Markdown table."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.evaluation.text_file import replace_text
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, Keep, ModelSpec, Variant

RULES = ('keep', 'threshold')


@dataclass(frozen=True)
class OperatingPoint:
    """A variant, and how it prunes: `rule` 'keep' or 'threshold' with its `value`; both None where nothing prunes."""

    variant: str
    rule: Optional[str] = None
    value: Optional[Keep] = None

    def __post_init__(self) -> None:
        prunes = bool(Variant.parse(self.variant).prune_layers)
        if (self.rule is not None) != prunes or (self.value is not None) != prunes:
            raise ValueError(
                f'{self.variant}: expected a rule and a value where it prunes, got {self.rule}, {self.value}')
        if self.rule is not None and self.rule not in RULES:
            raise ValueError(f'unknown rule {self.rule!r}; legal are {", ".join(RULES)}')

    @classmethod
    def default(cls, spec: ModelSpec) -> Optional['OperatingPoint']:
        """Return the point that a model runs at if nobody says otherwise; None if it keeps differently per layer."""
        if not spec.variant.prune_layers:
            return cls(str(spec.variant))
        if spec.budget.keep is None:
            return cls(str(spec.variant), 'threshold', spec.budget.threshold)
        return cls(str(spec.variant), 'keep', spec.budget.keep[0]) if len(set(spec.budget.keep)) == 1 else None

    @property
    def pruning(self) -> str:
        """The rule and its value, for people to read; a dash where nothing prunes."""
        return '–' if self.rule is None else f'{self.rule} {self.value}'

    def __str__(self) -> str:
        """Name the point; keep 1 (a token) and keep 1.0 (all of them) are equal numbers, but not the same name."""
        return self.variant if self.rule is None else f'{self.variant}, {self.pruning}'


@dataclass(frozen=True)
class SweepRow:
    """One point's results, as in EvaluationResult; `of_dense` is its share of the dense variant's GFLOPs, in [0, 1]."""

    point: OperatingPoint
    miou: float
    pixel_accuracy: float
    iou_per_class: dict[str, Optional[float]]
    tokens_mean: dict[str, float]
    gflops_mean: float
    of_dense: float


@dataclass(frozen=True)
class SweepSubject:
    """What was evaluated and how; rows of one subject can be compared.

    `samples_sha256` is that of the sample names, `merged_windows` and `keep_per_class` are the model's budget.
    """

    model: str
    model_sha256: str
    dataset: str
    split: str
    frames: int
    samples_sha256: str
    inference: str
    merged_windows: Keep
    keep_per_class: int
    backend: str
    device: str
    precision: str

    def differences(self, other: 'SweepSubject') -> list[str]:
        """Say in what another subject differs."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return [f'{name}: expected {mine}, got {theirs}' for name, mine, theirs in pairs if mine != theirs]


@dataclass(frozen=True)
class Sweep:
    """Rows in the order of the paper's variants, then by rule and value."""

    subject: SweepSubject
    default: Optional[OperatingPoint]
    rows: tuple[SweepRow, ...] = ()

    def find(self, point: OperatingPoint) -> Optional[SweepRow]:
        """Return a point's row, None if it has none yet."""
        return next((row for row in self.rows if str(row.point) == str(point)), None)

    def is_default(self, row: SweepRow) -> bool:
        """Whether a row is that of the model's own operating point."""
        return str(row.point) == str(self.default)

    def with_row(self, row: SweepRow) -> 'Sweep':
        """Return the sweep with one row more."""
        return dataclasses.replace(self, rows=tuple(sorted((*self.rows, row), key=lambda row: _order(row.point))))

    def save_json(self, path: Path) -> None:
        """Write everything, whole or not at all."""
        rows = [{**dataclasses.asdict(row.point), **_without_point(row)} for row in self.rows]
        default = None if self.default is None else dataclasses.asdict(self.default)
        content = {**dataclasses.asdict(self.subject), 'default': default, 'rows': rows}
        replace_text(path, json.dumps(content, indent=2) + '\n')

    @classmethod
    def load_json(cls, path: Path) -> 'Sweep':
        """Read what `save_json` wrote. Raises ValueError for anything else."""
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            default, rows = content.pop('default'), content.pop('rows')
            names = [field.name for field in dataclasses.fields(OperatingPoint)]
            return cls(
                SweepSubject(**content),
                None if default is None else OperatingPoint(**default),
                tuple(SweepRow(OperatingPoint(**{name: row.pop(name) for name in names}), **row) for row in rows),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f'{path}: expected what a sweep writes, got {type(error).__name__}: {error}') from error

    def save_csv(self, path: Path) -> None:
        """Write a table with a column for each stage's tokens, whole or not at all."""
        stages = list(dict.fromkeys(stage for row in self.rows for stage in row.tokens_mean))
        lines = [
            {**dataclasses.asdict(row.point), 'miou': row.miou, 'pixel_accuracy': row.pixel_accuracy,
             **{f'tokens_{stage}': count for stage, count in row.tokens_mean.items()},
             'gflops_mean': row.gflops_mean, 'of_dense': row.of_dense}
            for row in self.rows
        ]  # fmt: skip
        columns = ['variant', *('rule', 'value', 'miou', 'pixel_accuracy'), *(f'tokens_{stage}' for stage in stages),
                   'gflops_mean', 'of_dense']  # fmt: skip
        text = io.StringIO(newline='')
        writer = csv.DictWriter(text, columns, restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows(lines)
        replace_text(path, text.getvalue())

    def markdown(self) -> str:
        """Return the model card's table; the model's own operating point is in bold."""
        subject = self.subject
        lines = [
            f'{subject.model}, {subject.dataset} {subject.split} ({subject.frames} frames), {subject.backend} '
            f'{subject.precision} on {subject.device}. GFLOPs (multiply-add = 1) count everything that runs, policy '
            'network and auxiliary heads included. Tokens are the mean per frame.',
            '',
            '| variant | pruning | mIoU % | pixel accuracy % | tokens in → after pruning | GFLOPs | of dense |',
            '|---|---|---|---|---|---|---|',
        ]
        for row in self.rows:
            name = f'**{row.point.variant}** (default)' if self.is_default(row) else row.point.variant
            tokens = ' → '.join(f'{n:.0f}' for stage, n in row.tokens_mean.items() if stage != 'total')
            lines.append(f'| {name} | {row.point.pruning} | {row.miou:.2f} | {row.pixel_accuracy:.2f} | {tokens} '
                         f'| {row.gflops_mean:.2f} | {100 * row.of_dense:.0f} % |')  # fmt: skip
        return '\n'.join(lines) + '\n'


def _without_point(row: SweepRow) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != 'point'}


def _order(point: OperatingPoint) -> tuple:
    known = point.variant in PAPER_VARIANTS
    place = PAPER_VARIANTS.index(point.variant) if known else len(PAPER_VARIANTS)
    # counts of tokens come after fractions; a lower keep or threshold prunes more and comes first
    return (place, point.variant, point.rule or '', point.value or 0)
