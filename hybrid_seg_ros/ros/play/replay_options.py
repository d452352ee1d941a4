"""What a replay is asked to do, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from hybrid_seg_ros.ros.bags.bag_content import MAX_GAP_S

DEFAULT_ANSWER_TOPIC = '/segmentation_node/mask'


class ReplayError(ValueError):
    """A replay that cannot go on; the message says what is missing and how to give it."""


@dataclass(frozen=True)
class ReplayOptions:
    """What to play and how.

    `topics` empty: all camera topics. `rate` 1.0 is as recorded, but for gaps of more than `max_gap_s`, which become
    that. `lock_step` publishes a frame only once the one before it is answered: by an image with the same stamp on
    `answer_topic`, within `timeout_s`. Outside lock-step an `answer_topic`, if given, is only counted and timed.
    `wait_s` is how long subscribers may take to appear, 0 plays without them. `remap` maps topic names. `restamp`
    replaces header stamps by the present time.
    """

    bag: Path
    topics: Sequence[str] = ()
    rate: float = 1.0
    lock_step: bool = False
    answer_topic: Optional[str] = None
    timeout_s: float = 10.0
    wait_s: float = 30.0
    loop: bool = False
    labels: bool = False
    restamp: bool = False
    limit: Optional[int] = None
    remap: dict[str, str] = field(default_factory=dict)
    max_gap_s: float = MAX_GAP_S

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ReplayError(f'rate: expected more than 0, got {self.rate}')
        if not self.max_gap_s > 0:
            raise ReplayError(f'max-gap: expected more than 0 s, got {self.max_gap_s}')
        if self.limit is not None and self.limit < 1:
            raise ReplayError(f'limit: expected at least 1 frame, got {self.limit}')
        if self.lock_step and self.answer_topic is None:
            object.__setattr__(self, 'answer_topic', DEFAULT_ANSWER_TOPIC)


@dataclass(frozen=True)
class ReplayReport:
    """What was played; `answered` and what follows are None or empty where no answers were awaited.

    `latencies_ms` and `answered_stamps_ns` are of the same frames, in the order of their answers. `sent_hz` is the rate
    between the first and the last frame, None for fewer than two. `damage` is what BagReader says.
    """

    sent: int
    duration_s: float
    answered: Optional[int] = None
    answers_hz: Optional[float] = None
    latencies_ms: tuple[float, ...] = ()
    answered_stamps_ns: tuple[int, ...] = ()
    sent_hz: Optional[float] = None
    damage: Optional[str] = None

    def percentile_ms(self, percent: float) -> float:
        """Return the latency that `percent` of the answers stayed within (nearest rank); nan without answers."""
        if not self.latencies_ms:
            return float('nan')
        ordered = sorted(self.latencies_ms)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]

    def __str__(self) -> str:
        text = f'sent {self.sent} frames in {self.duration_s:.1f} s'
        if self.answered is None:
            return text
        text += f', {self.answered} answered, {self.sent - self.answered} dropped'
        if self.latencies_ms:
            text += f', {self.answers_hz:.1f} answers/s'
            text += f', latency p50 {self.percentile_ms(50):.0f} ms, p95 {self.percentile_ms(95):.0f} ms'
        return text
