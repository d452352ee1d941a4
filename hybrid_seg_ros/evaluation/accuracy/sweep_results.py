"""What a sweep found: one row per operating point, kept as JSON, CSV and a Markdown table."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from hybrid_seg_ros.evaluation.pages.tables import format_csv, format_table, format_tokens
from hybrid_seg_ros.files import write_json, write_text
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.inference.points_table import heeded_keep, name_point, windows_text
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, Keep, ModelSpec, TokenBudget, Variant, Windows

RULES = ('keep', 'threshold')


@dataclass(frozen=True)
class SweepPoint:
    """What to measure: in what the budget of one point differs from the model's own.

    `rule` is 'keep' or 'threshold' with its `value` (of keep also one per layer), both None where nothing prunes;
    `merged_windows`, as of TokenBudget, is None where nothing merges. Once measured, and if chosen, it becomes an
    OperatingPoint.
    """

    variant: str
    rule: Optional[str] = None
    value: Union[Keep, tuple[Keep, ...], None] = None
    merged_windows: Union[Keep, Windows, None] = None

    def __post_init__(self) -> None:
        if self.merged_windows is not None:  # JSON has lists for pairs
            object.__setattr__(self, 'merged_windows', TokenBudget(self.merged_windows).merged_windows)
        variant = Variant.parse(self.variant)
        if isinstance(self.value, (list, tuple)):
            values = heeded_keep(self.value, variant)
            object.__setattr__(self, 'value', values[0] if len(values) == 1 else values)
        prunes = bool(variant.prune_layers)
        if (self.rule is not None) != prunes or (self.value is not None) != prunes:
            raise ValueError(
                f'{self.variant}: expected a rule and a value where it prunes, got {self.rule}, {self.value}')
        if self.rule is not None and self.rule not in RULES:
            raise ValueError(f'unknown rule {self.rule!r}; legal are {", ".join(RULES)}')
        if (self.merged_windows is not None) != variant.merges:
            raise ValueError(f'{self.variant}: expected merged_windows where it merges, got {self.merged_windows}')

    @classmethod
    def default(cls, spec: ModelSpec) -> 'SweepPoint':
        """Return the point that a model runs at if nobody says otherwise."""
        merged = spec.budget.merged_windows if spec.variant.merges else None
        if not spec.variant.prune_layers:
            return cls(str(spec.variant), merged_windows=merged)
        if spec.budget.keep is None:
            return cls(str(spec.variant), 'threshold', spec.budget.threshold, merged)
        return cls(str(spec.variant), 'keep', spec.budget.keep, merged)

    def budget(self, own: TokenBudget) -> TokenBudget:
        """Return the complete budget, from the model's own. Raises ValueError for a value that is not legal."""
        keep, threshold = (self.value if self.rule == rule else None for rule in RULES)
        return choose_budget(own, keep, threshold, self.merged_windows)

    @property
    def pruning(self) -> str:
        """The rule and its value, for people to read; a dash where nothing prunes."""
        return '–' if self.rule is None else f'{self.rule} {self.value_text}'

    @property
    def value_text(self) -> str:
        """The value, as in 0.6, or those of each layer, as in 0.6+0.1; nothing where nothing prunes."""
        if self.value is None:
            return ''
        return '+'.join(map(str, self.value)) if isinstance(self.value, tuple) else str(self.value)

    @property
    def merging(self) -> str:
        """How many windows share a token, for people to read; a dash where none does."""
        return '–' if self.merged_windows is None else windows_text(self.merged_windows, '.3g')

    def __str__(self) -> str:
        """Name the point, as operating points are named."""
        return name_point(Variant.parse(self.variant), self.budget(TokenBudget()))


@dataclass(frozen=True)
class SweepRow:
    """One point's results, as in EvaluationResult; `of_dense` is its share of the dense variant's GFLOPs, in [0, 1]."""

    point: SweepPoint
    miou: float
    pixel_accuracy: float
    iou_per_class: dict[str, Optional[float]]
    tokens_mean: dict[str, float]
    gflops_mean: float
    of_dense: float


@dataclass(frozen=True)
class SweepSubject:
    """What was evaluated and how; rows of one subject can be compared.

    `samples_sha256` is that of the sample names, `keep_per_class` is of the model's budget.
    """

    model: str
    model_sha256: str
    dataset: str
    split: str
    frames: int
    samples_sha256: str
    inference: str
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
    """Rows in the order of the paper's variants, then by merged windows, rule and value."""

    subject: SweepSubject
    default: SweepPoint
    rows: tuple[SweepRow, ...] = ()

    def find(self, point: SweepPoint) -> Optional[SweepRow]:
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
        content = {**dataclasses.asdict(self.subject), 'default': dataclasses.asdict(self.default), 'rows': rows}
        write_json(path, content)

    @classmethod
    def load_json(cls, path: Path) -> 'Sweep':
        """Read what `save_json` wrote. Raises ValueError for anything else."""
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            default, rows = content.pop('default'), content.pop('rows')
            names = [field.name for field in dataclasses.fields(SweepPoint)]
            return cls(
                SweepSubject(**content),
                SweepPoint(**default),
                tuple(SweepRow(SweepPoint(**{name: row.pop(name) for name in names}), **row) for row in rows),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f'{path}: expected what a sweep writes, got {type(error).__name__}: {error}') from error

    def save_csv(self, path: Path) -> None:
        """Write a table with a column for each stage's tokens, whole or not at all."""
        write_text(path, format_csv([
            {**dataclasses.asdict(row.point), 'value': row.point.value_text, 'merged_windows': _cell(row.point),
             'miou': row.miou, 'pixel_accuracy': row.pixel_accuracy, 'tokens': row.tokens_mean,
             'gflops_mean': row.gflops_mean, 'of_dense': row.of_dense}
            for row in self.rows
        ]))  # fmt: skip

    def markdown(self) -> str:
        """Return the model card's table; the model's own operating point is in bold."""
        subject = self.subject
        heading = (
            f'{subject.model}, {subject.dataset} {subject.split} ({subject.frames} frames), {subject.backend} '
            f'{subject.precision} on {subject.device}. GFLOPs (multiply-add = 1) count everything that runs, policy '
            'network and auxiliary heads included. Tokens are the mean per frame.'
        )
        columns = ['variant', 'merged', 'pruning', 'mIoU %', 'pixel accuracy %', 'tokens in → after pruning', 'GFLOPs',
                   'of dense']  # fmt: skip
        rows = [
            [f'**{row.point.variant}** (default)' if self.is_default(row) else row.point.variant, row.point.merging,
             row.point.pruning, f'{row.miou:.2f}', f'{row.pixel_accuracy:.2f}', format_tokens(row.tokens_mean),
             f'{row.gflops_mean:.2f}', f'{100 * row.of_dense:.0f} %']
            for row in self.rows
        ]  # fmt: skip
        return f'{heading}\n\n{format_table(columns, rows, markdown=True, names=len(columns))}\n'


def _without_point(row: SweepRow) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != 'point'}


def _cell(point: SweepPoint) -> Optional[str]:
    return None if point.merged_windows is None else windows_text(point.merged_windows)


def _order(point: SweepPoint) -> tuple:
    known = point.variant in PAPER_VARIANTS
    place = PAPER_VARIANTS.index(point.variant) if known else len(PAPER_VARIANTS)
    # what leaves fewer tokens comes first: more merged windows, a lower keep or threshold; fractions before counts
    windows = () if point.merged_windows is None else TokenBudget(point.merged_windows).windows
    merged = sum(number * (1 - 1 / side**2) * (side**2 if isinstance(number, int) else 1) for side, number in windows)
    values = point.value if isinstance(point.value, tuple) else (point.value or 0,)
    return (place, point.variant, -merged, point.rule or '', values)
