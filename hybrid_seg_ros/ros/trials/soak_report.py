"""What is asked of a soak, and what came of it: whether memory and latency stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from hybrid_seg_ros.ros.trials.process_figures import ProcessFigures

WARM_UP = 0.05
"""Share of the frames that count for nothing: libraries fill their caches."""
END = 0.1
"""Share of the frames at the beginning, after the warm-up, that is held against as many at the end."""


@dataclass(frozen=True)
class SoakOptions:
    """How long, and how the node is set up. `model`, `bag`, `topic` None: as in a demo.

    `rate` plays the bag at so many times its speed; None publishes a frame once the one before is answered. `idle`
    leaves the network out. `max_growth_mib` is what memory may grow from the beginning to the end.
    """

    model: Optional[Path] = None
    bag: Optional[Path] = None
    topic: Optional[str] = None
    frames: int = 20_000
    rate: Optional[float] = None
    idle: bool = False
    max_growth_mib: float = 16.0
    start_s: float = 120.0
    timeout_s: float = 10.0
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f'frames: expected at least 1, got {self.frames}')
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f'rate: expected more than 0, got {self.rate}')
        if not self.max_growth_mib > 0:
            raise ValueError(f'max-growth: expected more than 0 MiB, got {self.max_growth_mib}')


@dataclass(frozen=True)
class Sample:
    """A look at the node after `frames` frames, `seconds` after the first; latency of the answers since the one before.

    `lost` counts all frames so far without an answer, those still at work among them. p50 and p95 are nan where no
    frame was answered.
    """

    frames: int
    seconds: float
    lost: int
    p50_ms: float
    p95_ms: float
    process: ProcessFigures

    def __str__(self) -> str:
        process = self.process
        return (
            f'{self.frames:7d} frames {self.seconds:7.0f} s   {process.resident_mib:7.1f} MiB (own '
            f'{process.anonymous_mib:.1f}, shared {process.shared_mib:.1f})   {process.threads} threads, '
            f'{process.open_files} files   p50 {self.p50_ms:.1f} ms, p95 {self.p95_ms:.1f} ms   {self.lost} lost'
        )


@dataclass(frozen=True)
class Change:
    """Medians over the samples at the beginning (after the warm-up) and at the end."""

    first: float
    last: float

    @property
    def growth(self) -> float:
        """How much more it is at the end."""
        return self.last - self.first

    def __str__(self) -> str:
        return f'{self.first:.1f} -> {self.last:.1f}'


@dataclass(frozen=True)
class SoakReport:
    """What the soak measured. `ended` says why it ended early; '' if it did not."""

    machine: str
    model: str
    bag: str
    frames: int
    max_growth_mib: float
    sent: int
    samples: tuple[Sample, ...]
    ended: str = ''

    @property
    def lost(self) -> int:
        """Frames without an answer."""
        return self.samples[-1].lost if self.samples else self.sent

    @property
    def resident_mib(self) -> Optional[Change]:
        """Resident memory; None if there are too few samples to tell."""
        return self._change(lambda sample: sample.process.resident_mib)

    @property
    def slope_mib(self) -> Optional[float]:
        """MiB that resident memory grows in 1000 frames: the straight line through the samples after the warm-up."""
        settled = self._settled()
        if len(settled) < 2:
            return None
        frames = [sample.frames for sample in settled]
        return 1000 * float(np.polyfit(frames, [sample.process.resident_mib for sample in settled], 1)[0])

    @property
    def verdict(self) -> str:
        """'flat', 'grows', or 'too short' to tell."""
        change = self.resident_mib
        if change is None:
            return 'too short'
        return 'flat' if change.growth <= self.max_growth_mib else 'grows'

    def to_dict(self) -> dict[str, object]:
        """Return the figures in a form that JSON has."""
        change, slope = self.resident_mib, self.slope_mib
        return {
            'machine': self.machine, 'model': self.model, 'bag': self.bag, 'frames': self.frames, 'sent': self.sent,
            'lost': self.lost, 'ended': self.ended, 'verdict': self.verdict,
            'first_mib': change and change.first, 'last_mib': change and change.last,
            'growth_mib': change and change.growth, 'slope_mib_per_1000_frames': slope,
            'samples': [_flat(sample) for sample in self.samples],
        }  # fmt: skip

    def __str__(self) -> str:
        seconds = self.samples[-1].seconds if self.samples else 0.0
        lines = [
            f'machine   {self.machine}',
            f'node      {self.model}',
            f'frames    {self.sent} of {self.frames} sent in {seconds:.0f} s from {self.bag}, {self.lost} lost',
        ]
        change = self.resident_mib
        if change is not None:
            lines += [
                f'memory    {change} MiB resident: {change.growth:+.1f} MiB; {self.slope_mib:+.3f} MiB in 1000 frames',
                f'          own {self._change(lambda s: s.process.anonymous_mib)} MiB, '
                f'shared {self._change(lambda s: s.process.shared_mib)} MiB',
                f'          threads {self._change(lambda s: s.process.threads)}, '
                f'open files {self._change(lambda s: s.process.open_files)}',
                f'latency   p50 {self._change(lambda s: s.p50_ms)} ms, p95 {self._change(lambda s: s.p95_ms)} ms',
            ]
        if self.ended:
            lines.append(f'ended     early: {self.ended}')
        lines.append(f'verdict   {self.verdict}' + (
            f': memory may grow by {self.max_growth_mib:g} MiB from the {END:.0%} of the frames after the warm-up to '
            f'the last {END:.0%}' if change is not None else ''
        ))  # fmt: skip
        return '\n'.join(lines)

    def _settled(self) -> Sequence[Sample]:
        return [sample for sample in self.samples if sample.frames > WARM_UP * self.sent]

    def _change(self, of: Callable[[Sample], float]) -> Optional[Change]:
        settled = self._settled()
        first = [of(sample) for sample in settled if sample.frames <= (WARM_UP + END) * self.sent]
        last = [of(sample) for sample in settled if sample.frames > (1 - END) * self.sent]
        if not first or not last:
            return None
        return Change(float(np.nanmedian(first)), float(np.nanmedian(last)))


def _flat(sample: Sample) -> dict[str, object]:
    """Return a sample with the process's figures beside the others; JSON has no nan."""
    fields = {**vars(sample), **vars(sample.process)}
    del fields['process']
    return {name: None if value != value else value for name, value in fields.items()}
