"""Read camera topics out of any rosbag2: a folder, or a single .mcap or .db3 file. Needs no ROS installation.

A damaged bag is an error; read tolerantly, it is a bag that ends early and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, Union

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from hybrid_seg_ros.ros.bags.bag_path import check_bag_path, check_metadata
from hybrid_seg_ros.ros.bags.bag_topic import COMPRESSED_IMAGE, BagError, BagMessage, BagTopic, TopicChoice
from hybrid_seg_ros.ros.bags.left_out import LeftOut, Met
from hybrid_seg_ros.ros.bags.recorded_message import RecordedMessage
from hybrid_seg_ros.ros.bags.write_ahead_log import find_write_ahead_log
from hybrid_seg_ros.ros.cdr_header import read_stamp_ns

if TYPE_CHECKING:
    from hybrid_seg_ros.ros.bags.damaged_bag import DamagedBag

__all__ = ['COMPRESSED_IMAGE', 'BagError', 'BagMessage', 'BagReader', 'BagTopic']


class BagReader(TopicChoice):
    """An open bag. Use as a context manager; every problem with the bag is a BagError.

    With `tolerant`, a damaged bag is read as far as it can be read, and is an error only if nothing can be. `topics`
    then count what can be read. Damage that shows only in reading is known once `messages` has come to its end.
    """

    def __init__(self, path: Union[str, Path], tolerant: bool = False) -> None:
        self.path = Path(path)
        self.topics: tuple[BagTopic, ...] = ()
        self._tolerant = tolerant
        check_bag_path(self.path)
        if not tolerant:
            check_metadata(self.path)
        self._reader: Optional[Reader] = None
        self._is_lent = False
        self._damaged: Optional[DamagedBag] = None
        self._damage: Optional[str] = None
        self._missing = 0
        self._left_out = LeftOut()
        self._typestore = get_typestore(Stores.ROS2_HUMBLE)  # image messages are the same in every ROS 2

    def __enter__(self) -> BagReader:
        try:
            self._open()
        except BagError as error:
            if not self._tolerant:
                raise
            try:
                self._salvage(error)
            except BagError:
                self.__exit__(None, None, None)
                raise
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._damaged is not None:
            self._damaged.close()

    @property
    def damage(self) -> Optional[str]:
        """What is wrong with the bag and how much of it was read, in a sentence; None if nothing is known to be."""
        found = [self._damage] if self._damage else []
        if self._missing:
            found.append(f'{_messages_are(self._missing)} missing that the index names')
        if self._left_out.first is not None:
            number = _messages_are(self._left_out.total)
            found.append(f'{number} damaged and left out, the first on {self._left_out.first}')
        return '; '.join(found) or None

    def messages(self, topics: Sequence[BagTopic]) -> Iterator[BagMessage]:
        """Yield the messages of `topics` in the order they were recorded."""
        by_name = {topic.name: topic for topic in topics}
        met: Met = Counter()
        for record in self._records(by_name):
            try:
                message = self._to_message(by_name[record.topic], record)
            except BagError as error:
                if not self._tolerant:
                    raise
                self._leave_out(record, self._reason(error), met)
            else:
                yield message

    def deserialize(self, message: BagMessage) -> Any:
        """Return the message as an object with the fields of its ROS type; `data` is a flat uint8 array."""
        with self._parsing():
            return self._typestore.deserialize_cdr(message.cdr, message.topic.msgtype)

    def _leave_out(self, record: RecordedMessage, reason: str, met: Met) -> None:
        if self._left_out.note(record, reason, met):
            count = sum(topic.count for topic in self.topics if topic.name == record.topic)
            self._recount(record.topic, count - 1)

    def _recount(self, name: str, count: int) -> None:
        self.topics = tuple(replace(each, count=count) if each.name == name else each for each in self.topics)

    def _open(self) -> None:
        check_metadata(self.path)
        with self._parsing():
            reader = Reader(self.path)
            reader.open()
            self._reader = reader
            infos = sorted(reader.topics.items())
        self.topics = tuple(BagTopic(name, info.msgtype or 'several types', info.msgcount) for name, info in infos)
        files = self.path.glob('*.db3') if self.path.is_dir() else [self.path]
        if self._tolerant and any(map(find_write_ahead_log, files)):
            raise BagError(f'bag {self.path}: left open, with messages in a write-ahead log')

    def _records(self, names: Collection[str]) -> Iterator[RecordedMessage]:
        """Yield what was recorded; where the bag proves damaged on the way, what else can be read of it."""
        given: Met = Counter()
        if self._damaged is None:
            try:
                for record in self._records_of_healthy(names):
                    if self._tolerant:
                        given[record.topic, record.log_ns] += 1
                    yield record
                if self._tolerant:
                    self._note_missing(names, given)
                return
            except BagError as error:
                if not self._tolerant:
                    raise
                if self._damaged is None:  # else another iteration was the first to find the damage
                    self._salvage(error)
        for record in self._damaged.messages(names):
            if given[record.topic, record.log_ns] > 0:
                given[record.topic, record.log_ns] -= 1
            else:
                yield record

    def _records_of_healthy(self, names: Collection[str]) -> Iterator[RecordedMessage]:
        with self._parsing(), self._free_reader() as reader:
            connections = [link for link in reader.connections if link.topic in names]
            if not connections:
                return  # the library takes an empty list for "all topics"
            for link, log_ns, cdr in reader.messages(connections):
                yield RecordedMessage(link.topic, link.msgtype, log_ns, bytes(cdr))

    @contextmanager
    def _free_reader(self) -> Iterator[Reader]:
        """Lend the reader, or another one while it is lent: two iterations over one would move each other's place."""
        if self._is_lent:
            with Reader(self.path) as another:
                yield another
            return
        self._is_lent = True
        try:
            yield self._reader
        finally:
            self._is_lent = False

    def _note_missing(self, names: Collection[str], given: Counter[tuple[str, int]]) -> None:
        """Note it if fewer messages came than the index names: a chunk without a checksum may just end early.

        Raises BagError if none at all came of a topic.
        """
        came = Counter(name for name, _ in given.elements())
        came.subtract(self._left_out.by_topic())
        for topic in self.topics:
            if topic.name in names and topic.count > came[topic.name]:
                if came[topic.name] <= 0:
                    raise BagError(f'bag {self.path}: its index names {topic}, but none was found')
                self._missing += topic.count - came[topic.name]
                self._recount(topic.name, came[topic.name])

    def _to_message(self, topic: BagTopic, record: RecordedMessage) -> BagMessage:
        with self._parsing():
            if self._tolerant:
                self._typestore.deserialize_cdr(record.cdr, topic.msgtype)
            return BagMessage(topic, record.log_ns, read_stamp_ns(record.cdr), record.cdr)

    def _salvage(self, cause: BagError) -> None:
        """Go over to reading a damaged bag: count what can be read. Raises `cause` if that is nothing."""
        try:
            from hybrid_seg_ros.ros.bags.damaged_bag import DamagedBag
        except ModuleNotFoundError as error:
            raise BagError(f'{cause}; reading what is left of it needs {error.name}: pip install mcap') from error

        expected = sum(topic.count for topic in self.topics) + self._left_out.total  # 0 where there is no index
        self._damaged = DamagedBag(self.path)
        stock = self._damaged.take_stock(partial(self._is_usable, Counter()))
        count = sum(stock.counts.values())
        if not count:
            raise cause
        topics = sorted(self._damaged.topics.items())
        self.topics = tuple(BagTopic(name, msgtype, stock.counts[name]) for name, msgtype in topics)
        problems = '; '.join(self._damaged.problems) or f'index or metadata is damaged ({self._reason(cause)})'
        read = f'{count} of {expected}' if count < expected else str(count)
        self._damage = f'{problems}: {read} messages could be read, up to {stock.seconds:.1f} s after the first'

    def _is_usable(self, met: Met, record: RecordedMessage) -> bool:
        topic = BagTopic(record.topic, record.msgtype, 0)
        try:
            if topic.is_image:
                self._to_message(topic, record)
        except BagError as error:
            self._leave_out(record, self._reason(error), met)
            return False
        return True

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

    def _reason(self, error: BagError) -> str:
        return str(error.__cause__ or error).removeprefix(f'bag {self.path}: ').rstrip('.')


def _messages_are(count: int) -> str:
    return '1 message is' if count == 1 else f'{count} messages are'
