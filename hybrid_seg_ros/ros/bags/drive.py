"""Drive: the frames of one camera in a bag, and their ground truth."""

from __future__ import annotations

from typing import Optional

import numpy as np

from hybrid_seg_ros.ros.bags.bag_reader import COMPRESSED_IMAGE, BagMessage, BagReader
from hybrid_seg_ros.ros.bags.ground_truth import GroundTruth, LabelSource
from hybrid_seg_ros.ros.compressed_decoding import compressed_to_rgb
from hybrid_seg_ros.ros.image_decoding import image_to_rgb


class Drive:
    """One camera topic of an open bag, up to `limit` frames of it, with the ground truth where there is some."""

    def __init__(
        self, bag: BagReader, topic: Optional[str] = None, label_topic: Optional[str] = None,
        limit: Optional[int] = None, truth: Optional[LabelSource] = None, void: Optional[int] = None,
        classes: Optional[int] = None,
    ) -> None:  # fmt: skip
        """Read the stamps. Raises BagError where the bag does not hold the topics.

        `truth` takes the place of the label topic, whose ids are otherwise read by `void` and `classes`.
        """
        self.bag, self.limit = bag, limit
        self.camera = bag.select_camera_topic(topic)
        log_ns, self.stamps_ns = [], []
        for message in bag.messages([self.camera]):
            log_ns.append(message.log_ns)
            self.stamps_ns.append(message.stamp_ns)
        self.camera = bag.select_camera_topic(self.camera.name)  # counted anew, where reading has found damage
        self.rate_hz = (len(log_ns) - 1) * 1e9 / (log_ns[-1] - log_ns[0]) if log_ns[-1] > log_ns[0] else 1.0
        self.stamps_ns = self.stamps_ns[:limit]
        labels = bag.select_label_topic(label_topic) if truth is None else None
        self.truth: Optional[LabelSource] = truth if labels is None else GroundTruth(bag, labels, classes, void)

    @property
    def is_compressed(self) -> bool:
        """Whether the frames are compressed images."""
        return self.camera.msgtype == COMPRESSED_IMAGE

    def topic(self, image: str) -> str:
        """Return the topic to play on for a node whose topic is called `image`."""
        return f'{image}/compressed' if self.is_compressed else image

    def frames(self) -> list[BagMessage]:
        """Return the frames as they were recorded."""
        return [message for message, _ in zip(self.bag.messages([self.camera]), self.stamps_ns)]

    def image(self, message: BagMessage) -> np.ndarray:
        """Return the picture (H, W, 3) uint8 RGB of one of the frames."""
        content = self.bag.deserialize(message)
        return compressed_to_rgb(content) if self.is_compressed else image_to_rgb(content)

    def images(self, stamps_ns: set[int]) -> dict[int, np.ndarray]:
        """Return the pictures of these stamps."""
        messages = (message for message in self.bag.messages([self.camera]) if message.stamp_ns in stamps_ns)
        return {message.stamp_ns: self.image(message) for message in messages}
