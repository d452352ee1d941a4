"""CameraMonitor: counts what happens to one camera's frames; written by two threads, read by diagnostics."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Optional

import numpy as np

from hybrid_seg_ros.segmentation import TokenReport

WORK_STEPS = ('convert', 'preprocess', 'inference', 'postprocess')
STEPS = (*WORK_STEPS, 'total')
"""What is timed of a frame; `total` is from its receipt to the publication of its mask, its wait included."""

SUBSCRIBER_S = 60.0
"""How long a subscriber of incompatible QoS shows in diagnostics."""

RECENT_S = 5.0
"""How long a bad frame shows in diagnostics."""
_WINDOW_S = 5.0
_RATE_EVENTS = 300
_LATENCY_FRAMES = 200


@dataclass(frozen=True)
class CameraHealth:
    """State of one camera at one moment. Percentiles are (p50, p95) in milliseconds per step.

    `stamp_age_s` is how old the last image's stamp was when it came, on the node's clock; `info_fps` the rate of
    camera_info, which is that of the camera even where its images get lost; `image_bytes` the last image's size.
    `chosen_by` counts frames as `Film.counts` does.
    """

    fps_in: float = 0.0
    fps_out: float = 0.0
    received: int = 0
    segmented: int = 0
    bad_frames: int = 0
    recent_bad_frame: str = ''
    decoder_complaints: int = 0
    failures: int = 0
    failure: str = ''
    incompatible_qos: str = ''
    incompatible_subscriber: str = ''
    since_image_s: Optional[float] = None
    stamp_age_s: Optional[float] = None
    since_info_s: Optional[float] = None
    info_fps: float = 0.0
    image_bytes: int = 0
    latency_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    tokens: Optional[TokenReport] = None
    chosen_by: Mapping[str, int] = field(default_factory=dict)


class CameraMonitor:
    """Times are those of the monotonic clock: one that jumps (use_sim_time, a bag that loops) does no harm."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known = CameraHealth()  # but for what depends on the moment
        self._in, self._out, self._info = (deque(maxlen=_RATE_EVENTS) for _ in range(3))
        self._bad_frame_s = self._incompatible_subscriber_s = 0.0
        self.last_image_s: Optional[float] = None
        """When the last image came, or the waiting began."""
        self._last_info_s: Optional[float] = None
        self._latency_ms = {step: deque[float](maxlen=_LATENCY_FRAMES) for step in STEPS}

    def restart(self, now_s: float) -> None:
        """Wait for images from now on."""
        with self._lock:
            for times_s in (self._in, self._out, self._info):
                times_s.clear()
            self._known = replace(self._known, stamp_age_s=None, failure='', incompatible_qos='')
            self.last_image_s, self._last_info_s = now_s, None

    def image_received(self, now_s: float, stamp_age_s: Optional[float] = None, image_bytes: int = 0) -> None:
        """Note a message. One that comes shows that some publisher's QoS does fit."""
        with self._lock:
            received = self._known.received + 1
            self._known = replace(
                self._known, received=received, stamp_age_s=stamp_age_s, image_bytes=image_bytes, incompatible_qos=''
            )
            self._in.append(now_s)
            self.last_image_s = now_s

    def info_received(self, now_s: float) -> None:
        """Note a camera_info."""
        with self._lock:
            self._info.append(now_s)
            self._last_info_s = now_s

    def period_ms(self, now_s: float) -> float:
        """Return how far apart images come, those that are dropped included; 0 where that is not known."""
        with self._lock:
            fps = rate_hz(self._in, now_s)
        return 1e3 / fps if fps > 0 else 0.0

    def bad_frame(self, problem: str, now_s: float) -> None:
        """Note a message that held no usable image."""
        with self._lock:
            self._known = replace(self._known, bad_frames=self._known.bad_frames + 1, recent_bad_frame=problem)
            self._bad_frame_s = now_s

    def decoder_complained(self) -> None:
        """Note a picture that could be read, with something wrong about it."""
        with self._lock:
            self._known = replace(self._known, decoder_complaints=self._known.decoder_complaints + 1)

    def inference_failed(self, problem: str) -> None:
        """Note that segmenting or publishing a good image failed; stays until one succeeds."""
        with self._lock:
            self._known = replace(self._known, failures=self._known.failures + 1, failure=problem)

    def qos_incompatible(self, problem: str) -> None:
        """Note a publisher that cannot be received."""
        with self._lock:
            self._known = replace(self._known, incompatible_qos=problem)

    def subscriber_incompatible(self, problem: str) -> None:
        """Note a subscriber of an output that cannot receive it. Nobody tells when it goes; it is shown for a while."""
        with self._lock:
            self._known = replace(self._known, incompatible_subscriber=problem)
            self._incompatible_subscriber_s = time.monotonic()

    def image_segmented(self, latency_ms: Mapping[str, float], tokens: TokenReport, now_s: float) -> float:
        """Note a published mask, with the milliseconds of each of STEPS; return the rate of masks in Hz."""
        with self._lock:
            self._known = replace(self._known, segmented=self._known.segmented + 1, failure='', tokens=tokens)
            for step in STEPS:
                self._latency_ms[step].append(latency_ms[step])
            self._out.append(now_s)
            return rate_hz(self._out, now_s)

    def health(self, now_s: float) -> CameraHealth:
        """Return the state at this moment."""
        with self._lock:
            known = self._known
            is_bad = now_s - self._bad_frame_s <= RECENT_S
            is_incompatible = now_s - self._incompatible_subscriber_s <= SUBSCRIBER_S
            return replace(
                known,
                fps_in=rate_hz(self._in, now_s),
                fps_out=rate_hz(self._out, now_s),
                info_fps=rate_hz(self._info, now_s),
                recent_bad_frame=known.recent_bad_frame if is_bad else '',
                incompatible_subscriber=known.incompatible_subscriber if is_incompatible else '',
                since_image_s=None if self.last_image_s is None else now_s - self.last_image_s,
                since_info_s=None if self._last_info_s is None else now_s - self._last_info_s,
                latency_ms={
                    step: (float(np.percentile(times, 50)), float(np.percentile(times, 95)))
                    for step, times in self._latency_ms.items()
                    if times
                },
            )


def rate_hz(times_s: deque[float], now_s: float) -> float:
    """Return the rate between the first and the last event of the last seconds; 0 where there are fewer than two.

    Older times are forgotten.
    """
    while times_s and now_s - times_s[0] > _WINDOW_S:
        times_s.popleft()
    if len(times_s) < 2 or times_s[-1] == times_s[0]:
        return 0.0
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])
