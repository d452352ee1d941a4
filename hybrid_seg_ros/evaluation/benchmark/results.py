"""From laps to the rows of a benchmark: medians, ratios, what saves GFLOPs but no time; as JSON and tables."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

import numpy as np

from hybrid_seg_ros.evaluation.benchmark.plan import ALTERNATIVES, PLAIN, RowKey, SizedModel, format_size
from hybrid_seg_ros.evaluation.pages.tables import format_number, format_table, format_tokens
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.segmentation import StageTimings

DENSE = 'dense'
SIGNIFICANCE = 0.05
"""A variant counts as slower if equally fast ones would look like that less often than this."""
TOLERANCE = 0.01
"""And only if the median of the rounds' quotients says so by more than this."""
FEWEST_ROUNDS = 5
"""With fewer, not even a variant that is slower in each round counts as slower."""


@dataclass(frozen=True)
class Lap:
    """One frame of one row: milliseconds by the clock outside of the pipeline, and what the pipeline says itself."""

    total_ms: float
    timings: StageTimings


@dataclass(frozen=True)
class RowLaps:
    """What was measured of one row: a lap per round, and what a frame cost and used on average."""

    key: RowKey
    laps: tuple[Lap, ...]
    gflops: float
    tokens: dict[str, float]
    device: str = 'cpu'
    weights: str = 'random'
    network_parts_ms: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: Optional[float] = None
    peak_device_memory_mb: Optional[float] = None

    @property
    def totals_ms(self) -> list[float]:
        """Milliseconds of each round."""
        return [lap.total_ms for lap in self.laps]


@dataclass(frozen=True)
class BenchmarkRow(RowKey):
    """A row of the table, milliseconds per frame from RGB image to label map and confidence.

    The ratios are quotients of medians, above 1 where this row is faster; None where the other row was not measured.
    The `paired` ones are the median of the rounds' quotients, which a machine that slows down for some rounds disturbs
    less. All compare at the same size and dtype: `ratio_to_dense` with the same model and backend, `ratio_to_plain`
    with the plain way, dense, on the same backbone, `ratio_to_alternative` with the fastest of ALTERNATIVES, the dense
    model itself in the hands of `alternative`. `parts_ms` are medians of preprocess, network and postprocess;
    `network.NAME` are parts of the network. `peak_memory_mb` is that of a process of its own that does nothing else,
    Python and libraries included.
    """

    device: str
    weights: str
    rounds: int
    gflops: float
    tokens: dict[str, float]
    median_ms: float
    p95_ms: float
    ratio_to_dense: Optional[float]
    ratio_to_dense_paired: Optional[float]
    ratio_to_plain: Optional[float]
    ratio_to_plain_paired: Optional[float]
    alternative: Optional[str]
    ratio_to_alternative: Optional[float]
    ratio_to_alternative_paired: Optional[float]
    parts_ms: dict[str, float]
    peak_memory_mb: Optional[float]
    peak_device_memory_mb: Optional[float] = None


@dataclass(frozen=True)
class Violation:
    """`cheaper` takes fewer GFLOPs than `dearer`, but more time: in `slower_rounds` of `rounds`, `factor` by median."""

    cheaper: RowKey
    dearer: RowKey
    gflops: tuple[float, float]
    factor: float
    slower_rounds: int
    rounds: int

    def __str__(self) -> str:
        return (
            f'{self.cheaper} ({self.gflops[0]:.2f} GFLOPs) takes {self.factor:.2f} times as long as '
            f'{self.dearer.variant} ({self.gflops[1]:.2f} GFLOPs): slower in {self.slower_rounds} of {self.rounds} '
            'rounds'
        )


def summarize(measured: Sequence[RowLaps], plain_models: Mapping[SizedModel, SizedModel]) -> list[BenchmarkRow]:
    """Return the table's rows; `plain_models` names for each model the one whose plain rows it is compared with."""
    by_key = {row.key: row for row in measured}
    rows = []
    for row in measured:
        key = row.key
        dense = by_key.get(RowKey(*key.sized_model, DENSE, key.backend, key.dtype))
        plain = by_key.get(RowKey(*plain_models[key.sized_model], DENSE, PLAIN, key.dtype))
        alternatives = [by_key.get(RowKey(*key.sized_model, DENSE, backend, key.dtype)) for backend in ALTERNATIVES]
        alternative = min(filter(None, alternatives), key=lambda each: statistics.median(each.totals_ms), default=None)
        rows.append(
            BenchmarkRow(
                **vars(key), device=row.device, weights=row.weights, rounds=len(row.laps), gflops=row.gflops,
                tokens=row.tokens, median_ms=statistics.median(row.totals_ms),
                p95_ms=float(np.percentile(row.totals_ms, 95)), **_ratios('dense', dense, row),
                **_ratios('plain', plain, row), **_ratios('alternative', alternative, row),
                alternative=None if alternative is None else alternative.key.backend, parts_ms=parts_ms(row),
                peak_memory_mb=row.peak_memory_mb, peak_device_memory_mb=row.peak_device_memory_mb,
            )
        )  # fmt: skip
    return rows


def _ratios(name: str, reference: Optional[RowLaps], row: RowLaps) -> dict[str, Optional[float]]:
    """Return how many times as long a reference takes, by the medians and paired; None where it was not measured."""
    of_medians = paired = None
    if reference is not None:
        of_medians = statistics.median(reference.totals_ms) / statistics.median(row.totals_ms)
        paired = statistics.median(theirs / mine for theirs, mine in zip(reference.totals_ms, row.totals_ms))
    return {f'ratio_to_{name}': of_medians, f'ratio_to_{name}_paired': paired}


def parts_ms(row: RowLaps) -> dict[str, float]:
    """Return the medians of the pipeline's steps, and the parts of the network as they were given."""
    timings = [lap.timings for lap in row.laps]
    steps = {
        'preprocess': statistics.median(each.preprocess_ms for each in timings),
        'network': statistics.median(each.inference_ms for each in timings),
        'postprocess': statistics.median(each.postprocess_ms for each in timings),
    }
    return {**steps, **{f'network.{name}': ms for name, ms in row.network_parts_ms.items()}}


def find_violations(measured: Sequence[RowLaps]) -> list[Violation]:
    """List the pairs of one model, size, backend and dtype of which the one with fewer GFLOPs is slower, beyond noise.

    Beyond noise: by more than TOLERANCE, and in so many rounds that a coin would show as many with a probability below
    SIGNIFICANCE (sign test).
    """
    found = []
    for cheaper, dearer in itertools.permutations(measured, 2):
        same = replace(cheaper.key, variant=dearer.key.variant) == dearer.key
        if not same or cheaper.gflops >= dearer.gflops * (1 - 1e-9):
            continue
        quotients = [mine / theirs for mine, theirs in zip(cheaper.totals_ms, dearer.totals_ms)]
        slower, factor = sum(quotient > 1 for quotient in quotients), statistics.median(quotients)
        if factor > 1 + TOLERANCE and chance_of_heads(slower, len(quotients)) < SIGNIFICANCE:
            gflops = (cheaper.gflops, dearer.gflops)
            found.append(Violation(cheaper.key, dearer.key, gflops, factor, slower, len(quotients)))
    return found


def chance_of_heads(heads: int, throws: int) -> float:
    """Return the probability that a fair coin shows at least `heads` heads in `throws` throws."""
    return sum(math.comb(throws, count) for count in range(heads, throws + 1)) / 2**throws


DISTURBED = 0.05
"""Where a ratio of medians and the rounds' own ratio differ by more than this, something else ran beside the rows."""

COLUMNS: dict[str, Callable[[BenchmarkRow], str]] = {
    'model': lambda row: row.model, 'size': lambda row: format_size(row.size_hw), 'variant': lambda row: row.variant,
    'backend': lambda row: row.backend, 'dtype': lambda row: row.dtype, 'GFLOPs': lambda row: f'{row.gflops:.2f}',
    'tokens': lambda row: format_tokens(row.tokens), 'ms': lambda row: f'{row.median_ms:.1f}',
    'p95 ms': lambda row: f'{row.p95_ms:.1f}', 'vs dense': lambda row: times(row.ratio_to_dense),
    'vs plain': lambda row: times(row.ratio_to_plain), 'vs alternative': lambda row: times(row.ratio_to_alternative),
    **{step: lambda row, step=step: f'{row.parts_ms[step]:.1f}' for step in ('preprocess', 'network', 'postprocess')},
    'peak MiB': lambda row: format_number(row.peak_memory_mb, 0),
}  # fmt: skip
"""The table: what its columns say of a row."""
NAMES = 5
"""So many columns are names, flush left; the others are numbers, flush right."""


@dataclass(frozen=True)
class Benchmark:
    """The rows of one run, on one device."""

    device: str
    rows: tuple[BenchmarkRow, ...]

    @property
    def models(self) -> list[SizedModel]:
        """The models at their sizes, in order."""
        return list(dict.fromkeys(row.sized_model for row in self.rows))

    def rows_of(self, model: SizedModel) -> list[BenchmarkRow]:
        """Return the rows of a model at a size."""
        return [row for row in self.rows if row.sized_model == model]

    def save_json(self, path: Path) -> None:
        """Write everything, whole or not at all."""
        write_json(path, dataclasses.asdict(self))

    def text(self) -> str:
        """Return heading, table in aligned columns, and the parts of the networks."""
        table = format_table(list(COLUMNS), [row_cells(row) for row in self.rows], names=NAMES)
        return '\n'.join([self.heading(), table, *self._parts(), *self.remarks()]) + '\n'

    def markdown(self) -> str:
        """Return heading and table in Markdown; the fastest row of each model and size is in bold."""
        rows = []
        for row in self.rows:
            cells = row_cells(row)
            if row.median_ms == min(other.median_ms for other in self.rows if other.sized_model == row.sized_model):
                cells = [f'**{cell}**' if column == 'ms' else cell for column, cell in zip(COLUMNS, cells)]
            rows.append(cells)
        lines = [self.heading(), '', format_table(list(COLUMNS), rows, markdown=True, names=NAMES)]
        return '\n'.join([*lines, *([''] if self.remarks() else []), *self.remarks()]) + '\n'

    def heading(self) -> str:
        """Say what the numbers are, and of what."""
        rounds = self.rows[0].rounds
        return (
            f'Milliseconds per frame from image to label map and confidence, median of {rounds} interleaved rounds, '
            f'all counted; {self.device}.'
        )

    def remarks(self) -> list[str]:
        """Say what a reader must know to judge the numbers."""
        found = []
        trained = {row.model for row in self.rows if row.weights != 'random'}
        random = dict.fromkeys(
            f'{row.model} on {row.backend}' if row.model in trained else row.model
            for row in self.rows if row.weights == 'random'
        )  # fmt: skip
        if random:
            found.append(f'Random weights: {", ".join(random)}.')
        disturbed = [row for row in self.rows if _is_disturbed(row)]
        if disturbed:
            found.append(
                f'{len(disturbed)} of {len(self.rows)} rows were disturbed: their ratio of medians differs by more '
                f"than {100 * DISTURBED:.0f} % from the median of the rounds' ratios."
            )  # fmt: skip
        return found

    def _parts(self) -> list[str]:
        lines = []
        for row in self.rows:
            parts = {name.partition('.')[2]: ms for name, ms in row.parts_ms.items() if name.startswith('network.')}
            if parts:
                named = ', '.join(f'{name} {ms:.1f}' for name, ms in parts.items())
                lines.append(f'  {row}: {named}')
        return ['parts of the network, ms:', *lines] if lines else []


def row_cells(row: BenchmarkRow) -> list[str]:
    """Return a row of the table, as COLUMNS name it."""
    return [text(row) for text in COLUMNS.values()]


def times(ratio: Optional[float]) -> str:
    """Write a ratio as `1.72x`; nothing where there is none."""
    return '' if ratio is None else f'{ratio:.2f}x'


def _is_disturbed(row: BenchmarkRow) -> bool:
    names = ('ratio_to_dense', 'ratio_to_plain', 'ratio_to_alternative')
    pairs = [(getattr(row, name), getattr(row, f'{name}_paired')) for name in names]
    return any(medians is not None and abs(medians / paired - 1) > DISTURBED for medians, paired in pairs)
