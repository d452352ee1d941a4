"""The messages of a bag's topic by stamp, of which only so many are kept in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Optional

from hybrid_seg_ros.ros.bags.bag_reader import BagMessage, BagReader, BagTopic
from hybrid_seg_ros.ros.bags.reading_bar import with_bar

KEPT_BYTES = 256 * 2**20


class MessageWindow:
    """Messages are looked up in any order, from any thread. Those not kept are read again, from the last on if it can.

    So the order of the bag is quick; going back further than `kept_bytes` reads the bag from its beginning.
    """

    def __init__(self, bag: BagReader, topic: BagTopic, kept_bytes: int = KEPT_BYTES) -> None:
        """Read the topic once. Raises BagError for a bag that cannot be read."""
        self._bag, self._topic, self._kept_bytes = bag, topic, kept_bytes
        self._lock = threading.Lock()
        self._places: dict[int, int] = {}  # of a stamp, in the order of the bag
        self._kept: dict[int, BagMessage] = {}  # by place, the oldest first
        self._size = 0
        self._ahead: Iterator[BagMessage] = iter(())
        self._next: Optional[int] = None  # the place of the first message of `_ahead`
        for place, message in enumerate(with_bar(bag.messages([topic]), 'read labels', topic.count)):
            self._places[message.stamp_ns] = place
            if self._size + len(message.cdr) <= kept_bytes:
                self._keep(place, message)
        self.stamps_ns = tuple(sorted(self._places))

    def at(self, stamp_ns: int) -> Optional[BagMessage]:
        """Return the message with this header stamp, the last one if there are several; None if there is none."""
        place = self._places.get(stamp_ns)
        if place is None:
            return None
        with self._lock:
            message = self._kept.get(place)
            return self._read(place) if message is None else message

    def _read(self, wanted: int) -> BagMessage:
        if self._next is None or self._next > wanted:
            self._ahead, self._next = self._bag.messages([self._topic]), 0
        for message in self._ahead:
            place, self._next = self._next, self._next + 1
            self._keep(place, message)
            if place == wanted:
                return message
        raise RuntimeError(f'{self._topic.name}: message {wanted} was there before')

    def _keep(self, place: int, message: BagMessage) -> None:
        if place not in self._kept:
            self._kept[place] = message
            self._size += len(message.cdr)
        while self._size > self._kept_bytes:
            self._size -= len(self._kept.pop(next(iter(self._kept))).cdr)
