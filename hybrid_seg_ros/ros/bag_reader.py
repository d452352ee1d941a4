"""Read camera topics out of any rosbag2: a folder, or a single .mcap or .db3 file. Needs no ROS installation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Union

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from hybrid_seg_ros.ros.cdr_header import read_stamp_ns

RAW_IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
LABEL_NAMESPACE = 'labels'
"""A topic with this word between its slashes, as /camera/labels/compressed, holds class ids, not a camera image."""

_STORAGE_SUFFIXES = ('.mcap', '.db3')


class BagError(ValueError):
    """A bag that cannot be used as asked; the message names the bag and what it holds."""


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag: its name, message type and number of messages."""

    name: str
    msgtype: str
    count: int

    @property
    def is_image(self) -> bool:
        """Say whether the messages are images, raw or compressed."""
        return self.msgtype in (RAW_IMAGE, COMPRESSED_IMAGE)

    @property
    def is_labels(self) -> bool:
        """Say whether the images are ground-truth class ids."""
        return self.is_image and LABEL_NAMESPACE in self.name.split('/')

    def __str__(self) -> str:
        return f'{self.name} ({self.msgtype}, {self.count} messages)'


@dataclass(frozen=True)
class BagMessage:
    """A recorded image: `log_ns` is when it was recorded, `stamp_ns` its header stamp, `cdr` the serialised message."""

    topic: BagTopic
    log_ns: int
    stamp_ns: int
    cdr: bytes


class BagReader:
    """An open bag. Use as a context manager; every problem with the bag is a BagError."""

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(path)
        self._reader = self._find()
        self._typestore = get_typestore(Stores.ROS2_HUMBLE)  # image messages are the same in every ROS 2
        self.topics: tuple[BagTopic, ...] = ()

    def __enter__(self) -> BagReader:
        with self._parsing():
            self._reader.open()
            infos = sorted(self._reader.topics.items())
            self.topics = tuple(BagTopic(name, info.msgtype or 'several types', info.msgcount) for name, info in infos)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._reader.close()

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

    def select_label_topic(self, name: Optional[str] = None, option: str = '--label-topic') -> Optional[BagTopic]:
        """Return the ground-truth topic called `name`, or the only one there is, or None if there is none."""
        if name is not None:
            return self._named(name)
        return self._only(self.label_topics, option) if self.label_topics else None

    def messages(self, topics: Sequence[BagTopic]) -> Iterator[BagMessage]:
        """Yield the messages of `topics` in the order they were recorded."""
        by_name = {topic.name: topic for topic in topics}
        connections = [link for link in self._reader.connections if link.topic in by_name]
        if not connections:
            return  # the library takes an empty list for "all topics"
        with self._parsing():
            for connection, log_ns, cdr in self._reader.messages(connections):
                cdr = bytes(cdr)
                yield BagMessage(by_name[connection.topic], log_ns, read_stamp_ns(cdr), cdr)

    def deserialize(self, message: BagMessage) -> Any:
        """Return the message as an object with the fields of its ROS type; `data` is a flat uint8 array."""
        with self._parsing():
            return self._typestore.deserialize_cdr(message.cdr, message.topic.msgtype)

    def _find(self) -> Reader:
        if not self.path.exists():
            raise BagError(f'bag {self.path}: no such file or folder')
        if self.path.is_dir() and not (self.path / 'metadata.yaml').is_file():
            files = sorted(str(file) for file in self.path.iterdir() if file.suffix in _STORAGE_SUFFIXES)
            hint = f'; its storage can be opened by itself: {", ".join(files)}' if files else ''
            raise BagError(f'bag {self.path}: expected a rosbag2 folder, but it has no metadata.yaml{hint}')
        if self.path.is_file() and self.path.suffix not in _STORAGE_SUFFIXES:
            expected = ' or '.join(_STORAGE_SUFFIXES)
            raise BagError(f'bag {self.path}: expected a rosbag2 folder or a {expected} file, got {self.path.name!r}')
        with self._parsing():
            return Reader(self.path)

    def _named(self, name: str) -> BagTopic:
        absolute = '/' + name.lstrip('/')
        for topic in self.topics:
            if topic.name == absolute:
                if not topic.is_image:
                    raise BagError(f'bag {self.path}: expected images on {absolute}, got {topic.msgtype}')
                if not topic.count:
                    raise BagError(f'bag {self.path}: {absolute} holds no messages')
                return topic
        raise BagError(f'bag {self.path}: no topic {absolute}; it holds {_listing(self.topics)}')

    def _only(self, candidates: Sequence[BagTopic], option: str) -> BagTopic:
        if len(candidates) > 1:
            raise BagError(f'bag {self.path}: several image topics: {_listing(candidates)}; choose with {option} NAME')
        return candidates[0]

    @contextmanager
    def _parsing(self) -> Iterator[None]:
        try:
            yield
        except BagError:
            raise
        except Exception as error:  # a damaged file comes out of the parsers as nearly any type of error
            raise BagError(
                f'bag {self.path}: cannot be read; it may be damaged, or cut off by a recorder that was killed '
                f'({type(error).__name__}: {error})'
            ) from error


def _listing(topics: Sequence[BagTopic]) -> str:
    return ', '.join(str(topic) for topic in topics) or 'no topics'
