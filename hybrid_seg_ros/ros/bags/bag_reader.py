"""Read camera topics out of any rosbag2: a folder, or a single .mcap or .db3 file. Needs no ROS installation.

There is one way to read, and it takes what there is: `damage` says where bytes are missing or wrong.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional, Union

import zstandard
from rosbags.typesys import Stores, get_typestore

from hybrid_seg_ros.ros.bags.bag_content import (
    COMPRESSED_IMAGE,
    NANOSECONDS,
    RAW_IMAGE,
    BagError,
    BagMessage,
    BagTopic,
    RecordedMessage,
    StoredTopic,
    in_time_order,
    read_stamp_ns,
)
from hybrid_seg_ros.ros.bags.storage_files import Storage, find_storage_files, open_storages

_logger = logging.getLogger(__name__)


class BagReader:
    """An open bag. Use as a context manager; what cannot be read at all is a BagError.

    Damage that shows only in reading is known, and `topics` count what came, once `messages` has come to its end.
    """

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(path)
        self._stack = ExitStack()
        self._storages: dict[str, Storage] = {}
        self._missing: list[str] = []
        self._counts: Counter[StoredTopic] = Counter()
        self._expected = 0
        self._garbage: Counter[StoredTopic] = Counter()
        self._first_garbage: Optional[str] = None
        self._typestore = get_typestore(Stores.ROS2_HUMBLE)  # image messages are the same in every ROS 2

    def __enter__(self) -> BagReader:
        with ExitStack() as stack:
            files, self._missing = find_storage_files(self.path)
            self._storages = open_storages(files, stack)
            for storage in self._storages.values():
                self._counts.update(storage.counts)
            self._expected = self._ros2_count()
            if self.damage and not self._expected:
                raise BagError(f'bag {self.path}: {self.damage}')
            self._stack = stack.pop_all()
        chosen = self.topics
        others = [str(each) for each in self._all_topics() if each.count and not (each.is_ros2 and each in chosen)]
        if others:
            message = 'bag %s: left out: %s; only ROS 2 messages, of one type a topic, are read'
            _logger.warning(message, self.path, ', '.join(others))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def topics(self) -> tuple[BagTopic, ...]:
        """The topics by name; of several types with one name that which may be an image, or has the most messages."""
        ranked = sorted(self._all_topics(), key=lambda topic: (topic.is_image, topic.is_ros2, topic.count))
        return tuple(sorted({topic.name: topic for topic in ranked}.values(), key=lambda topic: topic.name))

    @property
    def damage(self) -> Optional[str]:
        """Which bytes are missing or wrong, and how much was read, in a sentence; None if none are known to be."""
        problems = [f'{name} is missing' for name in self._missing]
        problems += [f'{name} {storage.problem}' for name, storage in self._storages.items() if storage.problem]
        found = [f'{"; ".join(problems)}: {self._extent()}'] if problems else []
        garbage = sum(self._garbage.values())
        if garbage:
            messages = '1 message is' if garbage == 1 else f'{garbage} messages are'
            found.append(f'{messages} damaged and left out, the first on {self._first_garbage}')
        return '; '.join(found) or None

    @property
    def camera_topics(self) -> tuple[BagTopic, ...]:
        """Image topics with messages, ground truth apart."""
        return tuple(topic for topic in self.topics if topic.is_image and not topic.is_labels and topic.count)

    @property
    def label_topics(self) -> tuple[BagTopic, ...]:
        """Ground-truth topics with messages."""
        return tuple(topic for topic in self.topics if topic.is_labels and topic.count)

    def select_camera_topic(self, name: Optional[str] = None) -> BagTopic:
        """Return the image topic called `name`, or the only one there is. Raises BagError if neither is there."""
        if name is not None:
            return self._named(name)
        if not self.camera_topics:
            raise BagError(
                f'bag {self.path}: expected a topic of {RAW_IMAGE} or {COMPRESSED_IMAGE}, found {_listing(self.topics)}'
            )
        return self._only(self.camera_topics, '--topic')

    def select_label_topic(
        self, name: Optional[str] = None, camera: Optional[BagTopic] = None
    ) -> Optional[BagTopic]:
        """Return the ground-truth topic called `name`, or the only one there is, or None if there is none.

        With `camera`, only what belongs to it: a topic beside it, or the only one of a bag with no other image topic.
        """
        if name is not None:
            return self._named(name)
        topics = self.label_topics if camera is None else self._labels_of(camera)
        return self._only(topics, '--label-topic') if topics else None

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

    def messages(self, topics: Sequence[BagTopic]) -> Iterator[BagMessage]:
        """Yield the images of `topics` in the order of their recording times."""
        wanted = {StoredTopic(topic.name, topic.msgtype): topic for topic in topics if topic.is_image}
        came: Counter[StoredTopic] = Counter()
        garbage: Counter[StoredTopic] = Counter()
        streams = ((each.times_ns[0], each.messages(wanted.keys())) for each in self._storages.values())
        for record in in_time_order(streams):
            try:
                message = self._to_message(wanted[record.topic], record)
            except BagError as error:
                garbage[record.topic] += 1
                self._note_garbage(record, garbage[record.topic], error)
                continue
            came[record.topic] += 1
            yield message
        self._counts.update({topic: came[topic] - self._counts[topic] for topic in wanted})

    def deserialize(self, message: BagMessage) -> Any:
        """Return the message as an object with the fields of its ROS type; `data` is a flat uint8 array."""
        try:
            return self._typestore.deserialize_cdr(message.cdr, message.topic.msgtype)
        except Exception as error:  # a damaged message comes out of the parser as nearly any type of error
            raise BagError(str(error).rstrip('.') or type(error).__name__) from error

    def _to_message(self, topic: BagTopic, record: RecordedMessage) -> BagMessage:
        """Raise BagError for what is no image."""
        cdr = _decompressed(record.cdr)
        try:
            message = BagMessage(topic, record.log_ns, read_stamp_ns(cdr), cdr)
        except ValueError as error:
            raise BagError(str(error)) from error
        self.deserialize(message)
        return message

    def _note_garbage(self, record: RecordedMessage, count: int, error: BagError) -> None:
        """Note the `count`-th message of its topic in a reading, unless an earlier reading came so far."""
        if count > self._garbage[record.topic]:
            self._garbage[record.topic] = count
            self._counts[record.topic] -= 1
        if self._first_garbage is None:
            self._first_garbage = f'{record.topic.name} at {record.log_ns / NANOSECONDS:.3f} s ({error})'

    def _all_topics(self) -> list[BagTopic]:
        return [BagTopic(each.name, each.msgtype, count, each.encoding) for each, count in sorted(self._counts.items())]

    def _ros2_count(self) -> int:
        return sum(topic.count for topic in self._all_topics() if topic.is_ros2)

    def _extent(self) -> str:
        count = self._ros2_count()
        if not count:
            return 'nothing could be read'
        starts_ns, ends_ns = zip(*(each.times_ns for each in self._storages.values() if any(each.counts.values())))
        seconds = (max(ends_ns) - min(starts_ns)) / NANOSECONDS
        of = f' of {self._expected}' if count < self._expected else ''
        return f'{count}{of} messages could be read, up to {seconds:.1f} s after the first'


def _decompressed(cdr: bytes) -> bytes:
    """Undo rosbag2's compression of single messages; CDR itself starts with a zero."""
    if not cdr.startswith(zstandard.FRAME_HEADER):
        return cdr
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(cdr)
    except zstandard.ZstdError:
        return b''  # no message, and taken for none


def _listing(topics: Sequence[BagTopic]) -> str:
    return ', '.join(str(topic) for topic in topics) or 'no topics'
