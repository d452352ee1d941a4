"""PlayedCamera: publishes frames as a camera would, over and over, and notes what comes back for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix
from hybrid_seg_ros.ros.bags.bag_content import replace_stamp
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.play.node_process import NODE
from hybrid_seg_ros.ros.play.running_node import IMAGE, NodeAnswers, RunningNode
from hybrid_seg_ros.ros.qos import reliable_qos

_QUEUE = 10
_WAIT_S, _LAST_TOKENS_S, _SETTLE_S = 20.0, 1.0, 0.5
"""A publisher counts a subscriber before that one listens."""


@dataclass
class PlayedFrame:
    """A frame as it was played, and its answer; `index` is its place in the drive.

    `sent_s` is on the monotonic clock; `latency_ms` from its publication to the arrival of its mask in this process,
    None for a frame that was dropped; `score` that of its mask alone.
    """

    index: int
    stamp_ns: int
    sent_s: float
    latency_ms: Optional[float] = None
    score: Optional[ConfusionMatrix] = None

    @property
    def is_answered(self) -> bool:
        """Whether its mask came."""
        return self.latency_ms is not None


class PlayedCamera:
    """Publishes messages one after the other, over and over, stamped anew, and pairs the node's masks with them.

    `frames` are all that were played.
    """

    def __init__(
        self, node: RunningNode, messages: Sequence[bytes], topic: str = IMAGE, outputs: str = NODE, first: int = 0,
        on_mask: Optional[Callable[[PlayedFrame, np.ndarray], None]] = None,
    ) -> None:  # fmt: skip
        """Wait for the node to listen; `messages` are serialised, CompressedImage if the topic says so.

        `outputs` is what the node's topics for the camera begin with, `first` where it begins. `on_mask` is called with
        a frame and its labels (h, w) uint8; without it masks are only timed. Raises NodeError if nobody listens.
        """
        self._node, self._messages = node, messages
        self._first = self._next = first
        self._on_mask = on_mask
        self._asked: dict[int, PlayedFrame] = {}
        self.frames: list[PlayedFrame] = []
        ros = node.session.node
        kind = CompressedImage if topic.endswith('/compressed') else Image
        self._publisher = ros.create_publisher(kind, topic, reliable_qos(_QUEUE))
        self._answers = NodeAnswers(node.session, self._came, outputs, stamps_only=on_mask is None)
        if not node.session.spin_until(
            lambda: self._publisher.get_subscription_count() > 0
            and all(ros.count_publishers(f'{outputs}/{name}') for name in ('mask', 'token_usage')),
            _WAIT_S,
        ):
            raise node.error(f'segmentation_node does not listen to {topic}')
        node.session.spin_for(_SETTLE_S)

    def rewind(self) -> None:
        """Go back to the first frame, so that what follows is comparable with what was played before."""
        self._next = self._first

    def publish(self) -> PlayedFrame:
        """Publish the next frame."""
        index = self._next % len(self._messages)
        self._next += 1
        frame = PlayedFrame(index, time.time_ns(), time.monotonic())
        self._asked[frame.stamp_ns] = frame
        self.frames.append(frame)
        self._publisher.publish(replace_stamp(self._messages[index], frame.stamp_ns))
        return frame

    def await_last(self, timeout_s: float) -> None:
        """Wait for the answer to the last frame."""
        self._node.session.spin_until(lambda: self.frames[-1].is_answered, timeout_s)

    def tokens(self) -> dict[int, Mapping[str, int]]:
        """Return the token counts per stage of the answered frames, by stamp."""
        self._node.session.spin_until(lambda: self._answers.is_complete(len(self._answers.arrivals_s)), _LAST_TOKENS_S)
        return self._answers.tokens()

    def _came(self, stamp_ns: int, labels: Optional[np.ndarray]) -> None:
        frame = self._asked.pop(stamp_ns, None)
        if frame is not None:
            frame.latency_ms = (self._answers.arrivals_s[stamp_ns] - frame.sent_s) * 1e3
            if self._on_mask is not None:
                self._on_mask(frame, labels)


class DriveCamera(PlayedCamera):
    """Plays a drive, and scores masks of frames that have ground truth; `last` is the frame and mask that came last."""

    def __init__(
        self, node: RunningNode, drive: Drive, num_classes: int, image: str = IMAGE, outputs: str = NODE, first: int = 0
    ) -> None:
        """`image` is the node's topic; the others are as in PlayedCamera."""
        self._drive, self._num_classes, self._recorded = drive, num_classes, drive.frames()
        self.last: Optional[tuple[PlayedFrame, np.ndarray]] = None
        messages = [message.cdr for message in self._recorded]
        super().__init__(node, messages, drive.topic(image), outputs, first, self._score)

    def picture(self, frame: PlayedFrame) -> np.ndarray:
        """Return the picture (H, W, 3) uint8 RGB of a frame."""
        return self._drive.image(self._recorded[frame.index])

    def _score(self, frame: PlayedFrame, labels: np.ndarray) -> None:
        self.last = frame, labels
        truth = self._drive.truth
        target = None if truth is None else truth.labels_at(self._recorded[frame.index].stamp_ns)
        if target is not None:
            frame.score = ConfusionMatrix(self._num_classes)
            frame.score.update(cv2.resize(labels, target.shape[::-1], interpolation=cv2.INTER_NEAREST), target)


def play(
    node: RunningNode, cameras: Sequence[PlayedCamera], rate_hz: float, duration_s: float,
    on_frame: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Let cameras publish in step for so long, a frame at least. Raises NodeError if the node has ended."""
    due_s = time.monotonic()
    for _ in range(max(1, round(duration_s * rate_hz))):
        for camera in cameras:
            camera.publish()
        due_s = max(due_s + 1 / rate_hz, time.monotonic())  # never two at once to catch up
        node.session.spin_for(due_s - time.monotonic())
        node.check_alive()
        on_frame()


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
