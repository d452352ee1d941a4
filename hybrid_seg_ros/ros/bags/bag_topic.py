"""What a bag holds: topics and recorded images; and the error of a bag that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from hybrid_seg_ros.ros.bags.recorded_message import CDR

RAW_IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
LABEL_NAMESPACE = 'labels'
"""A topic with this word between its slashes, as /camera/labels/compressed, holds class ids, not a camera image."""


class BagError(ValueError):
    """A bag that cannot be used as asked; the message names the bag and what it holds."""


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag: its name, message type, number of messages, and how they are serialised."""

    name: str
    msgtype: str
    count: int
    encoding: str = CDR

    @property
    def is_ros2(self) -> bool:
        """Say whether the messages are serialised as ROS 2 does."""
        return self.encoding == CDR

    @property
    def is_image(self) -> bool:
        """Say whether the messages are images, raw or compressed."""
        return self.is_ros2 and self.msgtype in (RAW_IMAGE, COMPRESSED_IMAGE)

    @property
    def kind(self) -> str:
        """The message type, and the serialisation where it is not that of ROS 2."""
        return self.msgtype if self.is_ros2 else f'{self.msgtype} as {self.encoding or "unknown"}'

    @property
    def is_labels(self) -> bool:
        """Say whether the images are ground-truth class ids."""
        return self.is_image and LABEL_NAMESPACE in self.name.split('/')

    def is_labels_beside(self, image: str) -> bool:
        """Say whether these are labels in a namespace, other than the root, that the topic `image` is in, too.

        /front/labels/compressed is beside /front/image_raw/compressed; /labels is beside none.
        """
        if not self.is_labels:
            return False
        parts = self.name.split('/')
        namespace = parts[: parts.index(LABEL_NAMESPACE)]
        return len(namespace) > 1 and image.split('/')[: len(namespace)] == namespace

    def __str__(self) -> str:
        return f'{self.name} ({self.kind}, {self.count} messages)'


@dataclass(frozen=True)
class BagMessage:
    """A recorded image: `log_ns` is when it was recorded, `stamp_ns` its header stamp, `cdr` the serialised message."""

    topic: BagTopic
    log_ns: int
    stamp_ns: int
    cdr: bytes


class TopicChoice:
    """The choice among the `topics` of the bag at `path`. Raises BagError where there is none to make."""

    path: Path
    topics: tuple[BagTopic, ...]
    damage: Optional[str]

    @property
    def camera_topics(self) -> tuple[BagTopic, ...]:
        """Image topics with messages, ground truth apart."""
        return tuple(topic for topic in self.topics if topic.is_image and not topic.is_labels and topic.count)

    @property
    def label_topics(self) -> tuple[BagTopic, ...]:
        """Ground-truth topics with messages."""
        return tuple(topic for topic in self.topics if topic.is_labels and topic.count)

    def select_camera_topic(self, name: Optional[str] = None, option: str = '--topic') -> BagTopic:
        """Return the image topic called `name`, or the only one there is; `option` is how a user would name it."""
        if name is not None:
            return self._named(name)
        if not self.camera_topics:
            raise BagError(
                f'bag {self.path}: expected a topic of {RAW_IMAGE} or {COMPRESSED_IMAGE}, found {_listing(self.topics)}'
            )
        return self._only(self.camera_topics, option)

    def select_label_topic(
        self, name: Optional[str] = None, option: str = '--label-topic', camera: Optional[BagTopic] = None
    ) -> Optional[BagTopic]:
        """Return the ground-truth topic called `name`, or the only one there is, or None if there is none.

        With `camera`, only what belongs to it: a topic beside it, or the only one of a bag with no other image topic.
        """
        if name is not None:
            return self._named(name)
        topics = self.label_topics if camera is None else self._labels_of(camera)
        return self._only(topics, option) if topics else None

    def _labels_of(self, camera: BagTopic) -> tuple[BagTopic, ...]:
        beside = tuple(topic for topic in self.label_topics if topic.is_labels_beside(camera.name))
        is_only_pair = len(self.label_topics) == 1 and [topic.name for topic in self.camera_topics] == [camera.name]
        return self.label_topics if is_only_pair else beside

    def _named(self, name: str) -> BagTopic:
        absolute = '/' + name.lstrip('/')
        for topic in self.topics:
            if '/' + topic.name.lstrip('/') == absolute:  # MCAP writers may leave the slash out
                if not topic.is_image:
                    raise BagError(f'bag {self.path}: expected images on {absolute}, got {topic.kind}')
                if not topic.count:
                    because = f' that can be read: {self.damage}' if self.damage else ''
                    raise BagError(f'bag {self.path}: {absolute} holds no messages{because}')
                return topic
        raise BagError(f'bag {self.path}: no topic {absolute}; it holds {_listing(self.topics)}')

    def _only(self, candidates: Sequence[BagTopic], option: str) -> BagTopic:
        if len(candidates) > 1:
            raise BagError(f'bag {self.path}: several image topics: {_listing(candidates)}; choose with {option} NAME')
        return candidates[0]


def _listing(topics: Sequence[BagTopic]) -> str:
    return ', '.join(str(topic) for topic in topics) or 'no topics'
