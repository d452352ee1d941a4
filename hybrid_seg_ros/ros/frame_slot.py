"""FrameSlot: hands the newest frame from the callback to the worker; an older one that nobody took is dropped."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Optional


@dataclass(frozen=True)
class Frame:
    """A message as it came, and when it came on the monotonic clock, in seconds."""

    message: Any
    received_s: float


class FrameSlot:
    """Room for one frame. `put` never waits, so that the callback never holds up the executor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame: Optional[Frame] = None
        self._is_open = False
        self._dropped = 0

    def open(self) -> None:
        """Let frames in."""
        with self._lock:
            self._is_open = True

    def close(self) -> None:
        """Let no more frames in and forget the one that waits."""
        with self._lock:
            self._is_open = False
            self._frame = None

    def put(self, frame: Frame) -> bool:
        """Leave a frame; return True if the slot was empty, so that the taker must be called."""
        with self._lock:
            if not self._is_open:
                return False
            was_empty = self._frame is None
            if not was_empty:
                self._dropped += 1
            self._frame = frame
            return was_empty

    def take(self) -> Optional[Frame]:
        """Take the newest frame; None if there is none."""
        with self._lock:
            frame, self._frame = self._frame, None
            return frame

    @property
    def dropped(self) -> int:
        """Number of frames that a newer one replaced before they were taken."""
        with self._lock:
            return self._dropped
