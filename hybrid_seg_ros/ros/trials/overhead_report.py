"""What is asked of a measurement of the node's own cost, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

TARGET_P50_MS = 5.0
"""What the node may take of a 1280x720 image, beside the network."""


@dataclass(frozen=True)
class OverheadOptions:
    """What the camera sends, for how long, and how the node is set up. `model` None is the one of the package.

    `shared_memory` False leaves Fast DDS as it comes. `parameters` are further ones of the node.
    """

    model: Optional[Path] = None
    size_hw: tuple[int, int] = (720, 1280)
    rate_hz: float = 30.0
    duration_s: float = 20.0
    mask_size: str = 'network'
    shared_memory: bool = True
    start_s: float = 120.0
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.size_hw) < 1:
            raise ValueError(f'size: expected a height and width of at least 1, got {self.size_hw}')
        if not 0 < self.rate_hz <= 1000:
            raise ValueError(f'rate: expected more than 0 and at most 1000 Hz, got {self.rate_hz}')
        if not self.rate_hz * self.duration_s >= 2:
            raise ValueError(f'duration: expected time for 2 frames, got {self.duration_s} s at {self.rate_hz} Hz')

    @property
    def frames(self) -> int:
        """Number of frames that the camera sends."""
        return round(self.rate_hz * self.duration_s)


@dataclass(frozen=True)
class Milliseconds:
    """Median of what a step took, and its 95th percentile where that is known."""

    p50: float
    p95: Optional[float] = None

    def __str__(self) -> str:
        return f'p50 {self.p50:6.2f} ms' + ('' if self.p95 is None else f'   p95 {self.p95:6.2f} ms')


@dataclass(frozen=True)
class OverheadReport:
    """What the node cost.

    `sent`, `received` and `answered` count frames: published by the camera, received by the node, come back as masks.
    `node_ms` is from an image's receipt to its mask's publication, `steps_ms` what it consists of, as the node says in
    its diagnostics, of its last 200 frames; `camera_to_mask_ms` from the camera's publishing an image to the mask's
    arrival here, of all frames. `cpu_percent` is of one core, `others_percent` likewise what processes took that have
    nothing to do with it. Memory is resident, in MiB.
    """

    machine: str
    model: str
    image_hw: tuple[int, int]
    rate_hz: float
    sent_hz: float
    mask_size: str
    shared_memory: bool
    sent: int
    received: int
    answered: int
    node_ms: Optional[Milliseconds]
    steps_ms: dict[str, Milliseconds]
    camera_to_mask_ms: Optional[Milliseconds]
    cpu_percent: Optional[float]
    others_percent: Optional[float]
    resident_mib: float
    threads: int

    @property
    def lost(self) -> int:
        """Frames without a mask."""
        return self.sent - self.answered

    @property
    def problem(self) -> str:
        """What is worse than it should be; '' if nothing is."""
        if self.lost:
            return f'{self.lost} of {self.sent} frames lost'
        if self.node_ms is None or self.node_ms.p50 > TARGET_P50_MS:
            return f'p50 in the node above {TARGET_P50_MS:g} ms'
        return ''

    def __str__(self) -> str:
        height, width = self.image_hw
        memory = 'config/fastdds_shm.xml' if self.shared_memory else 'its default'
        lines = [
            f'machine       {self.machine}',
            f'node          {self.model}, its network left out',
            f'camera        {width}x{height} rgb8 at {self.sent_hz:.1f} Hz (asked for {self.rate_hz:g}), shared memory '
            f'as {memory} says',
            f'frames        {self.sent} sent, {self.received} received, {self.answered} answered with a mask of '
            f'{self.mask_size} size, {self.lost} lost',
        ]
        if self.node_ms is not None:
            lines.append(f'in the node   {self.node_ms}   from receipt to publication, of which')
            lines += [f'  {name:<12}{step}' for name, step in self.steps_ms.items()]
        if self.camera_to_mask_ms is not None:
            lines.append(f'camera->mask  {self.camera_to_mask_ms}   from publishing the image to receiving the mask')
        if self.cpu_percent is not None:
            others = f'; other processes {self.others_percent:.1f} %'
            lines.append(f'processor     {self.cpu_percent:.1f} % of one core{others}')
        lines.append(f'memory        {self.resident_mib:.0f} MiB resident, {self.threads} threads')
        lines.append(f'target        {self.problem or f"kept: p50 within {TARGET_P50_MS:g} ms, no frame lost"}')
        return '\n'.join(lines)
