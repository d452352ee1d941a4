"""The messages of a bag that are garbage, each of them counted once, however often the bag is read."""

from __future__ import annotations

from collections import Counter
from typing import Optional

from hybrid_seg_ros.ros.bags.recorded_message import RecordedMessage
from hybrid_seg_ros.ros.cdr_header import NANOSECONDS

Met = Counter[tuple[str, int]]
"""How many a reading from the beginning has met, by topic and time: messages of one topic may have the same time."""


class LeftOut:
    """What was left out in all readings so far."""

    def __init__(self) -> None:
        self._counts: Met = Counter()
        self._first: Optional[str] = None

    def note(self, record: RecordedMessage, reason: str, met: Met) -> bool:
        """Note a message that a reading has come to; `met` is that reading's own. Returns whether it was not known."""
        key = record.topic, record.log_ns
        met[key] += 1
        if met[key] <= self._counts[key]:
            return False
        self._counts[key] = met[key]
        if self._first is None:
            self._first = f'{record.topic} at {record.log_ns / NANOSECONDS:.3f} s ({reason})'
        return True

    @property
    def total(self) -> int:
        """Number of messages."""
        return sum(self._counts.values())

    @property
    def first(self) -> Optional[str]:
        """Where the first was, and why it was left out; None if there is none."""
        return self._first

    def by_topic(self) -> Counter[str]:
        """Return the number of messages of each topic."""
        counts: Counter[str] = Counter()
        for (topic, _), count in self._counts.items():
            counts[topic] += count
        return counts
