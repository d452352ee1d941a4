"""A message as a bag's storage holds it, whatever the storage; and many of them, merged in time order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple, Optional

CDR = 'cdr'
"""How ROS 2 serialises messages; an MCAP file may hold others beside: protobuf, JSON, ROS 1."""


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
