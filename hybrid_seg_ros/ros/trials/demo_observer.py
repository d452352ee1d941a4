"""What the demo sees of the node over DDS: masks scored as they come, token usage, pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Int32MultiArray

from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix
from hybrid_seg_ros.ros.bags.ground_truth import LabelSource
from hybrid_seg_ros.ros.image_decoding import grey_values
from hybrid_seg_ros.ros.messages import image_to_rgb
from hybrid_seg_ros.ros.session import RosSession, reliable_qos

_DEPTH = 50

VIEWS = ('overlay', 'color_mask', 'token_map')
OnViews = Callable[[int, dict[str, np.ndarray]], None]
"""Called with the stamp of a frame and its VIEWS, each (H, W, 3) uint8 RGB."""


class Score:
    """mIoU of the masks that came, over the frames that have ground truth."""

    def __init__(self, truth: LabelSource, num_classes: int) -> None:
        self._truth, self._matrix = truth, ConfusionMatrix(num_classes)
        self._scored: set[int] = set()

    def add(self, stamp_ns: int, labels: np.ndarray) -> None:
        """Score the mask (h, w) uint8 of a frame, at the size of its ground truth; a frame counts once."""
        target = self._truth.labels_at(stamp_ns)
        if target is None or stamp_ns in self._scored:
            return
        if labels.shape != target.shape:
            labels = cv2.resize(labels, target.shape[::-1], interpolation=cv2.INTER_NEAREST)
        self._matrix.update(labels, target)
        self._scored.add(stamp_ns)

    @property
    def frames(self) -> int:
        """Number of frames scored."""
        return len(self._scored)

    @property
    def miou(self) -> float:
        """Mean IoU in per cent."""
        return self._matrix.miou()


class DemoObserver:
    """Subscribes to one segmentation node. What comes is counted for the phase that runs, see `begin`."""

    def __init__(self, session: RosSession, node_name: str) -> None:
        self._session, self._node_name = session, node_name
        self._tokens: list[list[int]] = []
        self._score: Optional[Score] = None
        self._on_views: Optional[OnViews] = None
        self._waiting: dict[int, dict[str, np.ndarray]] = {}
        self.mask_count = 0
        self._stages: tuple[str, ...] = ()
        self._subscribe(Image, f'{node_name}/mask', self._on_mask)
        self._subscribe(Int32MultiArray, f'{node_name}/token_usage', self._on_tokens)

    def begin(self, score: Optional[Score]) -> None:
        """Start a phase: forget the counts, score masks with `score`."""
        self._score = score
        self._tokens.clear()
        self.mask_count = 0

    def watch_views(self, on_views: OnViews) -> None:
        """Subscribe to VIEWS, which makes the node draw them."""
        self._on_views = on_views
        for name in VIEWS:
            self._subscribe(Image, f'{self._node_name}/{name}', lambda image, name=name: self._on_view(name, image))

    @property
    def tokens_mean(self) -> dict[str, float]:
        """Mean token count per stage over the phase."""
        if not self._tokens:
            return {}
        return dict(zip(self._stages, np.mean(self._tokens, axis=0).tolist()))

    def _on_mask(self, image: Image) -> None:
        self.mask_count += 1
        if self._score is not None:
            self._score.add(_stamp_ns(image), grey_values(image))

    def _on_tokens(self, usage: Int32MultiArray) -> None:
        self._stages = tuple(usage.layout.dim[0].label.split(','))
        self._tokens.append(list(usage.data))

    def _on_view(self, name: str, image: Image) -> None:
        """Hand on what belongs together; the views of a frame come one after the other, as drawn."""
        stamp_ns = _stamp_ns(image)
        views = self._waiting.setdefault(stamp_ns, {})
        views[name] = image_to_rgb(image)
        if len(views) == len(VIEWS):
            del self._waiting[stamp_ns]
            self._on_views(stamp_ns, views)

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        self._session.node.create_subscription(kind, topic, callback, reliable_qos(_DEPTH))


def _stamp_ns(image: Image) -> int:
    return image.header.stamp.sec * 1_000_000_000 + image.header.stamp.nanosec
