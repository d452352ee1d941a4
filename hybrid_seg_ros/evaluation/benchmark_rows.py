"""From laps to the rows of a benchmark: medians, ratios, and variants that save GFLOPs but no time. Pure functions."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from hybrid_seg_ros.evaluation.benchmark_plan import ALTERNATIVES, PLAIN, RowKey, Subject
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
class BenchmarkRow:
    """A row of the table, milliseconds per frame from RGB image to label map and confidence.

    The ratios are quotients of medians, above 1 where this row is faster; None where the other row was not measured.
    The `paired` ones are the median of the rounds' quotients, which a machine that slows down for some rounds disturbs
    less. All compare at the same size and dtype: `ratio_to_dense` with the same model and backend, `ratio_to_plain`
    with the plain way, dense, on the same backbone, `ratio_to_alternative` with the fastest of ALTERNATIVES, the dense
    model itself in the hands of `alternative`. `parts_ms` are medians of preprocess, network and postprocess;
    `network.NAME` are parts of the network. `peak_memory_mb` is that of a process of its own that does nothing else,
    Python and libraries included.
    """

    model: str
    size_hw: tuple[int, int]
    variant: str
    backend: str
    dtype: str
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

    @property
    def subject(self) -> Subject:
        """The model at its size."""
        return Subject(self.model, self.size_hw)


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


def summarize(measured: Sequence[RowLaps], plain_models: Mapping[Subject, Subject]) -> list[BenchmarkRow]:
    """Return the table's rows; `plain_models` names for each model the one whose plain rows it is compared with."""
    by_key = {row.key: row for row in measured}
    rows = []
    for row in measured:
        key = row.key
        dense = by_key.get(RowKey(*key.subject, DENSE, key.backend, key.dtype))
        plain = by_key.get(RowKey(*plain_models[key.subject], DENSE, PLAIN, key.dtype))
        alternatives = [by_key.get(RowKey(*key.subject, DENSE, backend, key.dtype)) for backend in ALTERNATIVES]
        alternative = min(filter(None, alternatives), key=lambda each: statistics.median(each.totals_ms), default=None)
        rows.append(
            BenchmarkRow(
                **vars(key), device=row.device, weights=row.weights, rounds=len(row.laps), gflops=row.gflops,
                tokens=row.tokens, median_ms=statistics.median(row.totals_ms),
                p95_ms=float(np.percentile(row.totals_ms, 95)), ratio_to_dense=ratio_of_medians(dense, row),
                ratio_to_dense_paired=paired_ratio(dense, row), ratio_to_plain=ratio_of_medians(plain, row),
                ratio_to_plain_paired=paired_ratio(plain, row),
                alternative=None if alternative is None else alternative.key.backend,
                ratio_to_alternative=ratio_of_medians(alternative, row),
                ratio_to_alternative_paired=paired_ratio(alternative, row), parts_ms=parts_ms(row),
                peak_memory_mb=row.peak_memory_mb, peak_device_memory_mb=row.peak_device_memory_mb,
            )
        )  # fmt: skip
    return rows


def ratio_of_medians(reference: Optional[RowLaps], row: RowLaps) -> Optional[float]:
    """Return how many times as long the reference takes, by the medians."""
    if reference is None:
        return None
    return statistics.median(reference.totals_ms) / statistics.median(row.totals_ms)


def paired_ratio(reference: Optional[RowLaps], row: RowLaps) -> Optional[float]:
    """Return how many times as long the reference takes, by the median of the rounds' quotients."""
    if reference is None:
        return None
    return statistics.median(theirs / mine for theirs, mine in zip(reference.totals_ms, row.totals_ms))


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
        same = all(getattr(cheaper.key, name) == getattr(dearer.key, name) for name in ('subject', 'backend', 'dtype'))
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
