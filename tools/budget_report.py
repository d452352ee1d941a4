"""What came of a latency budget: frame by frame, phase by phase, and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from played_camera import PlayedFrame, miou_of, percentile_ms

from hybrid_seg_ros.inference.points_table import OperatingPoint

SETTLED_S = 1.0
"""How long after the load has changed p95 is judged."""


@dataclass(frozen=True)
class FrameSeen:
    """A frame that was answered: seconds from the start of the run, what it took, and at which point of the table.

    `tokens` is the mean over the encoder's layers.
    """

    time_s: float
    latency_ms: float
    tokens: float
    point: int


@dataclass(frozen=True)
class BudgetPhase:
    """A phase of a run. Latency is from an image's publication to the arrival of its mask, in another process.

    `node_p95_ms` is from receipt to publication, as the node said last in the phase, of up to 30 frames at one point.
    `within` is the share of the answered frames inside the budget, `p95_settled_ms` leaves out the first SETTLED_S.
    `table_miou` is what the table promises of the points that ran, `miou` what came of the frames that were answered.
    """

    name: str
    start_s: float
    end_s: float
    sent: int
    answered: int
    p50_ms: float
    p95_ms: float
    p95_settled_ms: float
    node_p95_ms: Optional[float]
    within: float
    tokens: float
    miou: Optional[float]
    table_miou: float
    changes: int

    @property
    def fps(self) -> float:
        """Masks per second."""
        return self.answered / (self.end_s - self.start_s)


@dataclass(frozen=True)
class BudgetRun:
    """The drive played through all phases to one node."""

    name: str
    phases: tuple[BudgetPhase, ...]
    frames: tuple[FrameSeen, ...]


@dataclass(frozen=True)
class BudgetReport:
    """The same load with a budget and with a fixed point."""

    node: str
    target_ms: float
    rate_hz: float
    busy: int
    cores: int
    points: tuple[str, ...]
    point_miou: tuple[float, ...]
    runs: tuple[BudgetRun, ...]
    figure: str

    def __str__(self) -> str:
        head = (
            f'{"":8}{"":8}{"masks/s":>8}{"p50":>6}{"p95":>6}{"after 1 s":>11}{"node p95":>10}{"in budget":>11}'
            f'{"tokens":>8}{"mIoU":>7}{"table":>7}{"changes":>9}'
        )
        lines = [
            f'node     {self.node}',
            f'budget   {self.target_ms:g} ms, camera at {self.rate_hz:.1f} Hz; loaded: {self.busy} busy '
            f'process{"" if self.busy == 1 else "es"} on {self.cores} cores',
            head,
        ]
        lines += [_row(run.name, phase) for run in self.runs for phase in run.phases]
        lines.append(
            "p50, p95: ms from image to mask, in another process; after 1 s: p95 without the phase's first second;\n"
            'node p95: of the last 30 frames, ms from receipt to publication, which is what the node controls;\n'
            'tokens: mean of the layers; mIoU: % of the masks that came; table: what the operating points promise'
        )
        return '\n'.join([*lines, f'written  {self.figure}'])


def _row(run: str, phase: BudgetPhase) -> str:
    node = '-' if phase.node_p95_ms is None else f'{phase.node_p95_ms:.0f}'
    miou = '-' if phase.miou is None else f'{phase.miou:.1f}'
    return (
        f'{run:8}{phase.name:8}{phase.fps:8.1f}{phase.p50_ms:6.0f}{phase.p95_ms:6.0f}{phase.p95_settled_ms:11.0f}'
        f'{node:>10}{100 * phase.within:9.0f} %{phase.tokens:8.0f}{miou:>7}{phase.table_miou:7.1f}{phase.changes:9d}'
    )


def judge_phase(
    name: str, start_s: float, end_s: float, played: Sequence[PlayedFrame], seen: Sequence[FrameSeen],
    target_ms: float, points: Sequence[OperatingPoint], said_ms: Sequence[float],
) -> BudgetPhase:  # fmt: skip
    """Return what came of a phase: `played` are its frames, `seen` those that were answered.

    `said_ms` is what the node said of its p95 in it. Raises ValueError if no frame was answered.
    """
    if not seen:
        raise ValueError(f'no masks came in the phase {name!r}, for {len(played)} frames')
    settled = [frame.latency_ms for frame in seen if frame.time_s >= start_s + SETTLED_S]
    return BudgetPhase(
        name, start_s, end_s, len(played), len(seen), percentile_ms(played, 50), percentile_ms(played, 95),
        float(np.percentile(settled, 95)) if settled else float('nan'),
        said_ms[-1] if said_ms else None,
        float(np.mean([frame.latency_ms <= target_ms for frame in seen])),
        float(np.mean([frame.tokens for frame in seen])), miou_of(played),
        float(np.mean([points[frame.point].miou for frame in seen])),
        sum(before.point != after.point for before, after in zip(seen, seen[1:])),
    )  # fmt: skip


def point_of(tokens: Mapping[str, int], points: Sequence[OperatingPoint]) -> int:
    """Return which point of the table left these tokens. Raises ValueError if none has these stages."""
    same = [index for index, point in enumerate(points) if list(point.tokens) == list(tokens)]
    if not same:
        raise ValueError(f'no operating point has the stages {", ".join(tokens)}')
    return min(same, key=lambda index: sum(abs(points[index].tokens[stage] - n) for stage, n in tokens.items()))


def tokens_per_layer(tokens: Mapping[str, int], depth: int) -> float:
    """Return the mean over an encoder's `depth` layers of the tokens that each works on."""
    total, begin, entering = 0.0, 0, 0.0
    for stage, count in tokens.items():
        if stage.startswith('kept@'):
            layer = int(stage.removeprefix('kept@'))
            total += entering * (layer - begin)
            begin = layer
        entering = count
    return (total + entering * (depth - begin)) / depth
