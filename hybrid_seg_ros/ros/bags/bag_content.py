"""What a bag holds: topics and messages, those as a storage has them as well; and the error of one that is of no use.

A serialised message (CDR) is 4 bytes of encapsulation, then the fields. `sensor_msgs/Image` and `CompressedImage` (any
message whose first field is `std_msgs/Header`) start with the stamp: int32 seconds, uint32 nanoseconds. It is read and
replaced here without deserialising the image behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple, Optional

from tqdm import tqdm

CDR = 'cdr'
"""How ROS 2 serialises messages; an MCAP file may hold others beside: protobuf, JSON, ROS 1."""

RAW_IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
LABEL_NAMESPACE = 'labels'
"""A topic with this word between its slashes, as /camera/labels/compressed, holds class ids, not a camera image."""

NANOSECONDS = 1_000_000_000
MAX_GAP_S = 5.0
"""A longer pause between two messages counts as this: messages from before /clock ran may be of the year 1970."""

_ENCAPSULATION_BYTES = 4
_STAMP_END = _ENCAPSULATION_BYTES + 8
_MANY = 300
"""Fewer messages are there at once, and a bar would only flicker."""


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


class StoredTopic(NamedTuple):
    """A topic as a storage tells them apart: a name may stand for several types, in several encodings."""

    name: str
    msgtype: str
    encoding: str = CDR


class RecordedMessage(NamedTuple):
    """A message of `topic`, recorded at `log_ns`; `cdr` is its serialised form."""

    topic: StoredTopic
    log_ns: int
    cdr: bytes


def in_time_order(streams: Iterable[tuple[int, Iterator[RecordedMessage]]]) -> Iterator[RecordedMessage]:
    """Merge streams, each in time order and with the time of its first message; of equal times the first stream's.

    Nothing is asked of a stream before its time has come, so that few chunks and files are open at once.
    """
    waiting: list[tuple[int, int, Optional[RecordedMessage], Iterator[RecordedMessage]]] = [
        (first_ns, place, None, stream) for place, (first_ns, stream) in enumerate(streams)
    ]
    heapify(waiting)
    while waiting:
        _, place, message, stream = waiting[0]
        if message is not None:
            yield message
        following = next(stream, None)
        if following is None:
            heappop(waiting)
        else:
            heapreplace(waiting, (following.log_ns, place, following, stream))


def with_bar(messages: Iterable[BagMessage], title: str, total: int) -> Iterable[BagMessage]:
    """Return the messages; where there are many, a bar counts them on a terminal, and is gone when all are read."""
    return tqdm(messages, title, total, leave=False, unit='frame', disable=None if total > _MANY else True)


def read_stamp_ns(cdr: bytes) -> int:
    """Return the header stamp in nanoseconds. Raises ValueError if the message is too short to hold one."""
    seconds, nanoseconds = struct.unpack_from(_layout(cdr), cdr, _ENCAPSULATION_BYTES)
    return seconds * NANOSECONDS + nanoseconds


def replace_stamp(cdr: bytes, stamp_ns: int) -> bytes:
    """Return a copy of the message whose header stamp is `stamp_ns`."""
    stamp = struct.pack(_layout(cdr), *divmod(stamp_ns, NANOSECONDS))
    return b''.join((bytes(cdr[:_ENCAPSULATION_BYTES]), stamp, bytes(cdr[_STAMP_END:])))


def _layout(cdr: bytes) -> str:
    if len(cdr) < _STAMP_END:
        raise ValueError(f'expected a serialised message of at least {_STAMP_END} bytes, got {len(cdr)}')
    return '<iI' if cdr[1] & 1 else '>iI'  # the low bit of the second byte says little endian
