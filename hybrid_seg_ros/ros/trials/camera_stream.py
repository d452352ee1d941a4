"""CameraStream: plays a drive as a camera would, in real time, and notes what comes back for each frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Int32MultiArray

from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.cdr_header import NANOSECONDS, replace_stamp
from hybrid_seg_ros.ros.image_decoding import grey_values
from hybrid_seg_ros.ros.session import RosSession, reliable_qos

_QUEUE = 10
_DEPTH = 50
_SETTLE_S = 0.5
"""A publisher counts a subscriber before that one listens."""


@dataclass
class PlayedFrame:
    """A frame of the drive as it was played, and its answer.

    `sent_s` is on the monotonic clock; `latency_ms` from its publication to the arrival of its mask in this process,
    None for a frame that was dropped; `tokens` the count per stage; `score` that of its mask alone.
    """

    index: int
    sent_s: float
    latency_ms: Optional[float] = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    score: Optional[ConfusionMatrix] = None

    @property
    def is_answered(self) -> bool:
        """Whether its mask came."""
        return self.latency_ms is not None


class CameraStream:
    """Publishes the drive's frames one after the other, over and over, stamped anew; collects the node's answers."""

    def __init__(
        self, session: RosSession, drive: Drive, num_classes: int, image: str, outputs: str, first: int = 0
    ) -> None:
        """`image` is the camera's topic, `outputs` what the node's topics for it begin with, `first` a frame."""
        self._session, self._drive, self._num_classes = session, drive, num_classes
        self._messages = drive.frames()
        self._first = self._next = first
        self._asked: dict[int, PlayedFrame] = {}
        self._last_answered: Optional[PlayedFrame] = None
        self.on_mask: Callable[[PlayedFrame, np.ndarray], None] = lambda frame, labels: None
        self.frames: list[PlayedFrame] = []
        self._outputs = outputs
        self._publisher = session.node.create_publisher(
            CompressedImage if drive.is_compressed else Image, drive.topic(image), reliable_qos(_QUEUE)
        )
        session.node.create_subscription(Image, f'{outputs}/mask', self._mask_came, reliable_qos(_DEPTH))
        session.node.create_subscription(
            Int32MultiArray, f'{outputs}/token_usage', self._tokens_came, reliable_qos(_DEPTH)
        )

    def wait_for_node(self, timeout_s: float) -> bool:
        """Wait until the node listens and is listened to; return whether it does."""
        node = self._session.node
        return self._session.spin_until(
            lambda: self._publisher.get_subscription_count() > 0
            and all(node.count_publishers(f'{self._outputs}/{name}') for name in ('mask', 'token_usage')),
            timeout_s,
        )

    def rewind(self) -> None:
        """Go back to the first frame, so that what follows is comparable with what was played before."""
        self._next = self._first

    def publish(self) -> None:
        """Publish the next frame."""
        index = self._next % len(self._messages)
        self._next += 1
        stamp_ns = time.time_ns()
        frame = PlayedFrame(index, time.monotonic())
        self._asked[stamp_ns] = frame
        self.frames.append(frame)
        self._publisher.publish(replace_stamp(self._messages[index].cdr, stamp_ns))

    def picture(self, index: int) -> np.ndarray:
        """Return a frame's picture (H, W, 3) uint8 RGB."""
        return self._drive.image(self._messages[index])

    def _mask_came(self, mask: Image) -> None:
        now_s = time.monotonic()
        frame = self._asked.pop(mask.header.stamp.sec * NANOSECONDS + mask.header.stamp.nanosec, None)
        if frame is None:
            return
        frame.latency_ms = (now_s - frame.sent_s) * 1e3
        self._last_answered = frame
        labels = grey_values(mask)
        target = None
        if self._drive.truth is not None:
            target = self._drive.truth.labels_at(self._messages[frame.index].stamp_ns)
        if target is not None:
            frame.score = ConfusionMatrix(self._num_classes)
            frame.score.update(cv2.resize(labels, target.shape[::-1], interpolation=cv2.INTER_NEAREST), target)
        self.on_mask(frame, labels)

    def _tokens_came(self, usage: Int32MultiArray) -> None:
        """Note them with the mask that came last: the node publishes one right after the other."""
        if self._last_answered is not None and not self._last_answered.tokens:
            self._last_answered.tokens = dict(zip(usage.layout.dim[0].label.split(','), usage.data))


class StreamPlayer:
    """Plays streams in step, at one rate, without a gap from one call of `play` to the next."""

    def __init__(self, session: RosSession, rate_hz: float, check: Callable[[], None]) -> None:
        """`check` is called before each frame, and may raise."""
        self._session, self._period_s, self._check = session, 1 / rate_hz, check
        session.spin_for(_SETTLE_S)
        self._due_s = time.monotonic()

    def play(self, streams: Sequence[CameraStream], duration_s: float) -> None:
        """Publish frames for so long; there is at least one."""
        for _ in range(max(1, round(duration_s / self._period_s))):
            self._check()
            for stream in streams:
                stream.publish()
            self._due_s = max(self._due_s + self._period_s, time.monotonic())  # never two at once to catch up
            self._session.spin_for(self._due_s - time.monotonic())

    def await_stragglers(self, streams: Sequence[CameraStream], timeout_s: float) -> None:
        """Wait for the answers to the last frames."""
        self._session.spin_until(lambda: all(s.frames[-1].is_answered for s in streams if s.frames), timeout_s)


def percentile_ms(frames: Sequence[PlayedFrame], percent: float) -> float:
    """Return a percentile of the latencies of the answered frames; nan without any."""
    latencies = [frame.latency_ms for frame in frames if frame.is_answered]
    return float(np.percentile(latencies, percent)) if latencies else float('nan')


def miou_of(frames: Sequence[PlayedFrame]) -> Optional[float]:
    """Return the mIoU in per cent over the answered frames that have ground truth; None without any."""
    scores = [frame.score for frame in frames if frame.score is not None]
    if not scores:
        return None
    total = ConfusionMatrix(scores[0].num_classes)
    for score in scores:
        total.add(score)
    return total.miou()
