"""What came of two cameras that share a node: for each schedule, phase and camera, and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from hybrid_seg_ros.ros.trials.camera_stream import PlayedFrame, miou_of, percentile_ms


@dataclass(frozen=True)
class CamerasDemoOptions:
    """What to show; None are the things that come with the package. `rate_hz` is that of each camera."""

    output: Path
    bag: Optional[Path] = None
    topic: Optional[str] = None
    label_topic: Optional[str] = None
    model: Optional[Path] = None
    limit: Optional[int] = None
    rate_hz: float = 5.0
    phase_s: float = 10.0
    start_s: float = 300.0
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ('rate_hz', 'phase_s'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name}: expected more than 0, got {getattr(self, name):g}')


@dataclass(frozen=True)
class CameraPhase:
    """A phase of one camera. Latency is from an image's publication to the arrival of its mask in another process."""

    schedule: str
    phase: str
    camera: str
    sent: int
    answered: int
    fps: float
    p50_ms: float
    p95_ms: float
    miou: Optional[float]


@dataclass(frozen=True)
class CamerasReport:
    """Two cameras of one node."""

    node: str
    rate_hz: float
    rows: tuple[CameraPhase, ...]
    figure: str

    def __str__(self) -> str:
        lines = [
            f'node     {self.node}',
            f'cameras  front and rear, {self.rate_hz:g} Hz each, half the drive apart, over DDS; one model for both',
            f'{"schedule":10}{"phase":14}{"camera":8}{"sent":>6}{"answered":>10}{"masks/s":>9}{"p50":>8}{"p95":>8}{"mIoU":>8}',
        ]
        lines += [_row(row) for row in self.rows]
        return '\n'.join([*lines, f'written  {self.figure}'])


def judge_camera(
    schedule: str, phase: str, camera: str, frames: Sequence[PlayedFrame], duration_s: float
) -> CameraPhase:
    """Return what came of the frames that a camera sent in a phase."""
    answered = sum(frame.is_answered for frame in frames)
    return CameraPhase(
        schedule, phase, camera, len(frames), answered, answered / duration_s, percentile_ms(frames, 50),
        percentile_ms(frames, 95), miou_of(frames),
    )  # fmt: skip


def _row(row: CameraPhase) -> str:
    head = f'{row.schedule:10}{row.phase:14}{row.camera:8}{row.sent:6d}'
    if not row.sent:
        return f'{head}{"silent":>10}'
    miou = '-' if row.miou is None else f'{row.miou:.1f} %'
    return f'{head}{row.answered:10d}{row.fps:9.1f}{row.p50_ms:5.0f} ms{row.p95_ms:5.0f} ms{miou:>8}'
