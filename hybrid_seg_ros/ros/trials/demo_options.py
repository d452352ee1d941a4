"""What a demo is asked to do, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional


class DemoError(RuntimeError):
    """A demo that cannot go on; the message holds the log of the process to blame."""


@dataclass(frozen=True)
class DemoOptions:
    """What to show.

    `bag` and `model` None are those that come with the package, `variant` None the model's own, `topic` and
    `label_topic` None the only ones of the bag. The node may take `start_s` to load, and `timeout_s` for a frame.
    `parameters` are further ones of the node.
    """

    output: Path
    bag: Optional[Path] = None
    model: Optional[Path] = None
    topic: Optional[str] = None
    label_topic: Optional[str] = None
    variant: Optional[str] = None
    rate: float = 1.0
    limit: Optional[int] = None
    start_s: float = 120.0
    timeout_s: float = 10.0
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseReport:
    """One play of the drive. Latency is from publishing a frame to the arrival of its mask, in another process."""

    sent: int
    answered: int
    fps: float
    latency_p50_ms: float
    latency_p95_ms: float
    miou: Optional[float]
    scored_frames: int

    @property
    def dropped(self) -> int:
        """Frames without an answer."""
        return self.sent - self.answered


@dataclass(frozen=True)
class DemoReport:
    """The two plays, the tokens per stage (mean), what runs, and the files written; a rate of 0 is all at once."""

    bag: str
    bag_rate_hz: float
    node: str
    real_time: PhaseReport
    lock_step: PhaseReport
    tokens_mean: dict[str, float]
    files: tuple[str, ...]

    def __str__(self) -> str:
        live, full = self.real_time, self.lock_step
        total = next(iter(self.tokens_mean.values()), float('nan'))
        stages = ' -> '.join(f'{count:.0f} {name}' for name, count in self.tokens_mean.items())
        last = list(self.tokens_mean.values())[-1] if self.tokens_mean else float('nan')
        rate = f'at {self.bag_rate_hz:.1f} Hz' if self.bag_rate_hz else 'all at once'
        lines = [
            f'node       {self.node}',
            f'bag        {self.bag}, another process, over DDS',
            f'real time  {live.sent} frames {rate}: {live.answered} answered, '
            f'{live.dropped} dropped (the newest frame wins)',
            f'           {live.fps:.1f} FPS, latency p50 {live.latency_p50_ms:.0f} ms, '
            f'p95 {live.latency_p95_ms:.0f} ms from image to mask',
            f'lock-step  {full.sent} frames, each one awaited: {full.answered} answered, {full.dropped} dropped',
            f'tokens     {stages} (mean per frame; {100 * last / total:.0f} % reach the last layers)',
            f'mIoU       {_miou(full)}; in real time {_miou(live)}',
            f'written    {", ".join(self.files)}',
        ]
        return '\n'.join(lines)


def _miou(phase: PhaseReport) -> str:
    return 'no ground truth' if phase.miou is None else f'{phase.miou:.1f} % over {phase.scored_frames} frames'
