"""Read an MCAP file, whole or damaged, with an index or without: in time order, as far as its bytes go.

The heads of its records are followed once, which says where the chunks and the messages outside of chunks lie, and when
they were recorded. A chunk whose checksum is wrong is left out; one without a checksum, or in which the file ends, is
read up to the damage. Where the records cannot be followed, reading goes on at the next chunk that the index names.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import BinaryIO, Optional
from zlib import crc32

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, ChunkIndex, Schema, Statistics
from mcap.stream_reader import get_chunk_data_stream

from hybrid_seg_ros.ros.bags.bag_content import CDR, RecordedMessage, StoredTopic, in_time_order

MAGIC = b'\x89MCAP0\r\n'  # at both ends of a file
_HEAD = struct.Struct('<BQ')  # opcode, length of the content
_CHUNK_TIMES = struct.Struct('<QQ')
_MESSAGE = struct.Struct('<HIQQ')  # channel, number, time of recording, time of publishing
_MESSAGE_INDEX = struct.Struct('<HI')  # channel, length of the entries
_ENTRY_BYTES = 16
_FOOTER = struct.Struct('<BQQQI')  # head, where the index begins, where its offsets do, checksum from the first to here
_FOOTER_CRC_BYTES = 4


@dataclass(slots=True)
class _Part:
    """A chunk, or a message outside of chunks: where its record is, and how many messages of each channel it has."""

    place: int
    start_ns: int
    end_ns: int
    counts: Optional[dict[int, int]]


class McapStorage:
    """One file. `counts` are of what it says it holds; `problem` is complete once all is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, StoredTopic] = {}
        self._parts: list[_Part] = []
        self._one: dict[int, dict[int, int]] = {}  # the counts of messages outside of chunks, by channel
        self._damage: dict[int, str] = {}  # by place, as a file may be read several times
        self._promised = 0
        with path.open('rb') as file:
            self._size = file.seek(0, SEEK_END)
            self._structure = self._follow_records(file)
            for part in self._parts:
                if part.counts is None or part.counts.keys() - self._channels.keys():
                    list(self._messages_of(file, part, ()))
        lacking = self._promised - sum(sum(part.counts.values()) for part in self._parts)
        if lacking > 0 and not (self._structure or self._damage):
            self._structure = f'lacks {lacking} message{"s" * (lacking > 1)} that its index names'
        self.counts: Counter[StoredTopic] = Counter(dict.fromkeys(self._channels.values(), 0))
        for part in self._parts:
            for channel in part.counts.keys() & self._channels.keys():
                self.counts[self._channels[channel]] += part.counts[channel]

    @property
    def times_ns(self) -> tuple[int, int]:
        """The times of the first and of the last message; zeros without any."""
        used = [part for part in self._parts if part.counts]
        start_ns = min((part.start_ns for part in used), default=0)
        return start_ns, max((part.end_ns for part in used if part.place not in self._damage), default=start_ns)

    @property
    def problem(self) -> Optional[str]:
        """What is wrong with the bytes, as the rest of a sentence about the file; None if nothing is known to be."""
        found = [self._structure] if self._structure else []
        if self._damage:
            count, first = len(self._damage), min(self._damage)
            found.append(f'has {count} damaged chunk{"s" * (count > 1)} (at byte {first}: {self._damage[first]})')
        return ', '.join(found) or None

    def messages(self, topics: Collection[StoredTopic]) -> Iterator[RecordedMessage]:
        """Yield the messages of these topics in time order."""
        channels = {channel for channel, topic in self._channels.items() if topic in topics}
        parts = [part for part in self._parts if not channels.isdisjoint(part.counts)]
        with self._path.open('rb') as file:
            yield from in_time_order((part.start_ns, self._messages_of(file, part, channels)) for part in parts)

    def _messages_of(self, file: BinaryIO, part: _Part, channels: Collection[int]) -> Iterator[RecordedMessage]:
        """Yield the messages of these channels in time order; note what is damaged, and count where that is due."""
        messages, times_ns, counts = [], [], Counter()
        try:
            content, is_cut = self._unpack(file, part.place)
            end = 0
            for opcode, place, length in _records(BytesIO(content), 0, len(content)):
                end = place + length
                if end > len(content):
                    break
                record = content[place:end]
                if opcode != Opcode.MESSAGE:
                    self._declare(opcode, record)
                    continue
                channel, _, log_ns, _ = _MESSAGE.unpack_from(record)
                counts[channel] += 1
                times_ns.append(log_ns)
                if channel in channels:
                    messages.append(RecordedMessage(self._channels[channel], log_ns, record[_MESSAGE.size :]))
            missing = sum((Counter(part.counts or {}) - counts).values())
            strays = sum(count for channel, count in counts.items() if channel not in self._channels)
            if end != len(content) and not is_cut:
                raise ValueError('its records do not fill it')
            if missing or strays:
                raise ValueError(f'messages of no topic: {strays}, missing that its index names: {missing}')
        except Exception as error:  # damaged bytes come out of the parsers as nearly any type of error
            self._damage[part.place] = str(error) or type(error).__name__
        if part.counts is None:
            part.counts, part.start_ns, part.end_ns = counts, min(times_ns, default=0), max(times_ns, default=0)
        yield from sorted(messages, key=lambda message: message.log_ns)

    def _unpack(self, file: BinaryIO, place: int) -> tuple[bytes, bool]:
        """Return the records of a chunk, or the one record outside of chunks, and whether they are cut off.

        Raises some error where they are known to be wrong.
        """
        file.seek(place)
        head = file.read(_HEAD.size)
        opcode, length = _HEAD.unpack(head)
        if opcode != Opcode.CHUNK:
            return head + file.read(length), False
        chunk = Chunk.read(ReadDataStream(file))
        if place + _HEAD.size + length > self._size:
            return b'' if chunk.compression else chunk.data, True
        stream, size = get_chunk_data_stream(chunk, validate_crc=True)
        return stream.read(size), False

    def _declare(self, opcode: int, record: bytes) -> None:
        """Take note of a schema or a channel; of nothing else."""
        stream = ReadDataStream(BytesIO(record))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            self._schemas.setdefault(schema.id, schema.name)
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            name = self._schemas.get(channel.schema_id, 'unknown')
            if channel.message_encoding == CDR and name.count('/') == 1:
                name = name.replace('/', '/msg/')  # some writers leave it out, as ROS 1 does
            self._channels.setdefault(channel.id, StoredTopic(channel.topic, name, channel.message_encoding))

    def _follow_records(self, file: BinaryIO) -> Optional[str]:
        """Note all parts; return what is wrong with the file's structure, None if nothing is."""
        if not self._size:
            return 'is empty'
        try:
            chunks, stop = self._read_index(file)
        except Exception:  # as above
            chunks, stop = [], self._size
        bounds = [len(MAGIC), *chunks, stop]
        broken = {self._note_parts(file, *each) for each in zip(bounds, bounds[1:])} - {None}
        if chunks:
            broken |= set(chunks) - {part.place for part in self._parts}
            return f'is damaged in {len(broken)} place{"s" * (len(broken) > 1)}, passed over' if broken else None
        if not broken:
            return 'has a damaged index' if stop == self._size else None
        file.seek(0)
        if not self._parts and file.read(len(MAGIC)) != MAGIC:
            return 'is no MCAP file, or damaged where it begins'
        file.seek(max(0, self._size - len(MAGIC)))
        if file.read() != MAGIC:
            return 'is cut off, so that its index is missing (was the recorder killed?)'
        return f'is damaged {100 * min(broken) // self._size} % into it, and cannot be followed further'

    def _read_index(self, file: BinaryIO) -> tuple[list[int], int]:
        """Take the topics out of the index, and return where it says that chunks begin, and where it begins itself.

        There may be none in a file that is sound. Raises some error if its end is not.
        """
        end = self._size - len(MAGIC) - _FOOTER.size
        file.seek(end)
        opcode, _, begin, _, checksum = _FOOTER.unpack(file.read(_FOOTER.size))
        begin = begin or end
        if opcode != Opcode.FOOTER or file.read() != MAGIC or begin > end:
            raise ValueError('expected a footer')
        file.seek(begin)
        index = file.read(end + _FOOTER.size - _FOOTER_CRC_BYTES - begin)
        if checksum and crc32(index) != checksum:
            raise ValueError('the checksum is wrong')
        chunks = set()
        for opcode, place, length in _records(BytesIO(index), 0, end - begin):
            record = index[place : place + length]
            self._declare(opcode, record)
            if opcode == Opcode.CHUNK_INDEX:
                chunks.add(ChunkIndex.read(ReadDataStream(BytesIO(record))).chunk_start_offset)
            elif opcode == Opcode.STATISTICS:
                self._promised = Statistics.read(ReadDataStream(BytesIO(record))).message_count
        return sorted(chunks), begin

    def _note_parts(self, file: BinaryIO, start: int, stop: int) -> Optional[int]:
        """Note the parts between two places; return where the records cannot be followed, None if they can."""
        parts: list[_Part] = []
        place = end = start
        opcode = 0
        for opcode, place, length in _records(file, start, stop):
            end = place + length
            with suppress(Exception):  # of a topic, as a rule; its messages are of no topic then
                if end <= stop or opcode == Opcode.CHUNK:
                    self._note(file, opcode, place, length, parts)
            if opcode == Opcode.DATA_END:
                break
        is_followed = opcode == Opcode.DATA_END or end == stop < self._size
        if parts and not is_followed:
            parts[-1].counts = None  # to be counted: its index may not be whole
        self._parts += parts
        return None if is_followed else place

    def _note(self, file: BinaryIO, opcode: int, place: int, length: int, parts: list[_Part]) -> None:
        """Note the record that the file is at the content of."""
        if opcode == Opcode.MESSAGE:
            channel, _, log_ns, _ = _MESSAGE.unpack(file.read(_MESSAGE.size))
            parts.append(_Part(place - _HEAD.size, log_ns, log_ns, self._one.setdefault(channel, {channel: 1})))
        elif opcode == Opcode.CHUNK:
            times_ns = _CHUNK_TIMES.unpack(file.read(_CHUNK_TIMES.size))
            parts.append(_Part(place - _HEAD.size, *times_ns, None))
        elif opcode == Opcode.MESSAGE_INDEX and parts:
            channel, size = _MESSAGE_INDEX.unpack(file.read(_MESSAGE_INDEX.size))
            parts[-1].counts = {**(parts[-1].counts or {}), channel: size // _ENTRY_BYTES}
        else:
            self._declare(opcode, file.read(length) if opcode in (Opcode.SCHEMA, Opcode.CHANNEL) else b'')


def _records(file: BinaryIO, place: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, place and length of each record's content, with the file there; the last may go beyond `stop`."""
    while place < stop:
        file.seek(place)
        head = file.read(_HEAD.size)
        opcode, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
        if not opcode:
            return
        place += _HEAD.size
        yield opcode, place, length
        place += length
