"""What a soak measured, in words and as a picture: whether memory and latency stayed where they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from process_figures import ProcessFigures

from hybrid_seg_ros.evaluation.pages.figures import GREY, SMALL, STYLES, TEXT, new_figure, save_figure, style_axis

WARM_UP = 0.05
"""Share of the frames that count for nothing: libraries fill their caches."""
END = 0.1
"""Share of the frames at the beginning, after the warm-up, that is held against as many at the end."""

_SIZE_PX = (1200, 800)
_RESIDENT, _OWN, _SHARED = (STYLES[name][0] for name in ('dtop@6+8', 'hybrid@6+8', 'dtop@8'))


@dataclass(frozen=True)
class NodeSample(ProcessFigures):
    """A look at the node after `frames` frames, `seconds` after the first; latency of the answers since the one before.

    `lost` counts all frames so far without an answer, those still at work among them. p50 and p95 are nan where no
    frame was answered.
    """

    frames: int
    seconds: float
    lost: int
    p50_ms: float
    p95_ms: float

    def __str__(self) -> str:
        return (
            f'{self.frames:7d} frames {self.seconds:7.0f} s   {self.resident_mib:7.1f} MiB (own '
            f'{self.anonymous_mib:.1f}, shared {self.shared_mib:.1f})   {self.threads} threads, '
            f'{self.open_files} files   p50 {self.p50_ms:.1f} ms, p95 {self.p95_ms:.1f} ms   {self.lost} lost'
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
    samples: tuple[NodeSample, ...]
    ended: str = ''

    @property
    def lost(self) -> int:
        """Frames without an answer."""
        return self.samples[-1].lost if self.samples else self.sent

    def change(self, of: Callable[[NodeSample], float] = lambda sample: sample.resident_mib) -> Optional[Change]:
        """Return how a figure changed, resident memory unless told; None if there are too few samples to tell."""
        first = [of(sample) for sample in self._settled() if sample.frames <= (WARM_UP + END) * self.sent]
        last = [of(sample) for sample in self._settled() if sample.frames > (1 - END) * self.sent]
        if not first or not last:
            return None
        return Change(float(np.nanmedian(first)), float(np.nanmedian(last)))

    @property
    def slope_mib(self) -> Optional[float]:
        """MiB that resident memory grows in 1000 frames: the straight line through the samples after the warm-up."""
        settled = self._settled()
        if len(settled) < 2:
            return None
        frames = [sample.frames for sample in settled]
        return 1000 * float(np.polyfit(frames, [sample.resident_mib for sample in settled], 1)[0])

    @property
    def verdict(self) -> str:
        """'flat', 'grows', or 'too short' to tell."""
        change = self.change()
        if change is None:
            return 'too short'
        return 'flat' if change.growth <= self.max_growth_mib else 'grows'

    def to_dict(self) -> dict[str, object]:
        """Return the figures in a form that JSON has."""
        change = self.change()
        return {
            'machine': self.machine, 'model': self.model, 'bag': self.bag, 'frames': self.frames, 'sent': self.sent,
            'lost': self.lost, 'ended': self.ended, 'verdict': self.verdict,
            'first_mib': change and change.first, 'last_mib': change and change.last,
            'growth_mib': change and change.growth, 'slope_mib_per_1000_frames': self.slope_mib,
            'samples': [vars(sample) for sample in self.samples],
        }  # fmt: skip

    def __str__(self) -> str:
        seconds = self.samples[-1].seconds if self.samples else 0.0
        lines = [
            f'machine   {self.machine}',
            f'node      {self.model}',
            f'frames    {self.sent} of {self.frames} sent in {seconds:.0f} s from {self.bag}, {self.lost} lost',
        ]
        change, verdict = self.change(), f'verdict   {self.verdict}'
        if change is not None:
            lines += [
                f'memory    {change} MiB resident: {change.growth:+.1f} MiB; {self.slope_mib:+.3f} MiB in 1000 frames',
                f'          own {self.change(lambda s: s.anonymous_mib)} MiB, '
                f'shared {self.change(lambda s: s.shared_mib)} MiB',
                f'          threads {self.change(lambda s: s.threads)}, '
                f'open files {self.change(lambda s: s.open_files)}',
                f'latency   p50 {self.change(lambda s: s.p50_ms)} ms, p95 {self.change(lambda s: s.p95_ms)} ms',
            ]
            verdict += (
                f': memory may grow by {self.max_growth_mib:g} MiB from the {END:.0%} of the frames after the warm-up '
                f'to the last {END:.0%}'
            )
        ended = [f'ended     early: {self.ended}'] if self.ended else []
        return '\n'.join([*lines, *ended, verdict])

    def _settled(self) -> Sequence[NodeSample]:
        return [sample for sample in self.samples if sample.frames > WARM_UP * self.sent]


def draw_soak(report: SoakReport, path: Path) -> None:
    """Draw resident memory, and p50 and p95 of the latency, over the number of frames; written whole or not at all."""
    figure = new_figure(_SIZE_PX)
    memory, latency = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.08, right=0.86, bottom=0.09, top=0.86, hspace=0.16)
    figure.suptitle(f'{report.model}\n{report.machine}', fontsize=TEXT - 1)
    samples = report.samples
    frames = [sample.frames for sample in samples]
    for axis in (memory, latency):
        style_axis(axis)
        axis.set_xlim(0, max(frames, default=1))
    _draw_line(memory, 'resident', _RESIDENT, frames, [sample.resident_mib for sample in samples])
    _draw_line(memory, 'its own', _OWN, frames, [sample.anonymous_mib for sample in samples])
    _draw_line(memory, 'shared (DDS)', _SHARED, frames, [sample.shared_mib for sample in samples])
    memory.set_ylim(bottom=0)
    memory.set_ylabel('memory in MiB', fontsize=TEXT)
    change = report.change()
    if change is not None:
        text = f'{change.growth:+.1f} MiB from the first to the last tenth, {report.slope_mib:+.3f} MiB in 1000 frames'
        memory.set_title(text, fontsize=TEXT, fontweight='bold', loc='left')
    _draw_line(latency, 'p50', GREY, frames, [sample.p50_ms for sample in samples], lift_px=-7)
    _draw_line(latency, 'p95', _OWN, frames, [sample.p95_ms for sample in samples], lift_px=7)
    latency.set_ylim(bottom=0)
    latency.set_ylabel('image to mask in ms', fontsize=TEXT)
    latency.set_xlabel(f'frames; {report.lost} of {report.sent} lost', fontsize=TEXT)
    save_figure(figure, path)


def _draw_line(axis: Any, name: str, color: str, x: list[int], y: list[float], lift_px: int = 0) -> None:
    axis.plot(x, y, color=color, linewidth=1.4)
    if x:
        axis.annotate(name, (x[-1], y[-1]), xytext=(6, lift_px), textcoords='offset points', color=color,
                      fontsize=SMALL + 1, va='center', annotation_clip=False)  # fmt: skip
