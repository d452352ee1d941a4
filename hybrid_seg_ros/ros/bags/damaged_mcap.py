"""Read an MCAP file that is cut off or damaged, record by record, as far as it goes. It needs no index.

A chunk whose checksum is wrong, or that cannot be decompressed, is left out; without a checksum it is read up to the
damage. Where the file itself cannot be followed any further, reading goes on at the next chunk that its index names,
if it has one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import BinaryIO, Optional

from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, DataEnd, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, get_chunk_data_stream
from mcap.summary import Summary

from hybrid_seg_ros.ros.bags.recorded_message import RecordedMessage

_MAGIC = b'\x89MCAP0\r\n'  # at both ends of a file
_RECORD_HEAD_BYTES = 9  # opcode and length


class DamagedMcap:
    """One file. `topics` (name: type) and `problem` are complete once `messages` has come to its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.topics: dict[str, str] = {}
        self.problem: Optional[str] = None

    def messages(self) -> Iterator[RecordedMessage]:
        """Yield what can be read, in the order of the file."""
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, Channel] = {}
        self._damaged_chunks, self._strays, self._holes, self._has_all = 0, 0, 0, False
        with self._path.open('rb') as file:
            self._size = file.seek(0, SEEK_END)
            chunk_starts = self._read_summary(file)
            start: Optional[int] = 0
            while start is not None:
                broken_at = yield from self._follow(file, start)
                start = next((each for each in chunk_starts if broken_at is not None and each > broken_at), None)
                self._holes += start is not None
            self.problem = self._find_problem(file, broken_at)

    def _read_summary(self, file: BinaryIO) -> list[int]:
        """Take the topics out of the index, and return where the chunks begin; nothing if there is no index."""
        summary: Optional[Summary] = None
        with suppress(Exception):  # no index is what is expected of a damaged file
            file.seek(0)
            summary = SeekingReader(file, record_size_limit=self._size).get_summary()
        if summary is None:
            return []
        for record in (*summary.schemas.values(), *summary.channels.values()):
            self._declare(record)
        return sorted(index.chunk_start_offset for index in summary.chunk_indexes)

    def _follow(self, file: BinaryIO, start: int) -> Generator[RecordedMessage, None, Optional[int]]:
        """Yield the messages from `start` on; return where the records end that can be read, None for all of them."""
        file.seek(start)
        stream = StreamReader(file, skip_magic=start > 0, emit_chunks=True, record_size_limit=self._size)
        place = start or len(_MAGIC)
        try:
            for record in stream.records:
                if isinstance(record, Chunk):
                    yield from self._of_chunk(record)
                else:
                    yield from self._of_record(record)
                self._has_all = self._has_all or isinstance(record, DataEnd)
                place = file.tell()
            return None
        except Exception:  # damaged bytes come out of the parser as nearly any type of error
            if self._ends_within(file, place):
                yield from self._of_cut_chunk(file, place)
            return place

    def _of_chunk(self, chunk: Chunk) -> Iterator[RecordedMessage]:
        try:
            stream, length = get_chunk_data_stream(chunk, validate_crc=True)
            yield from self._of_content(stream.read(length))
        except Exception:
            self._damaged_chunks += 1

    def _of_content(self, content: bytes) -> Iterator[RecordedMessage]:
        """Yield the messages of a chunk's content. Raises some error where its records do not fill it exactly."""
        file = BytesIO(content)
        place = 0
        with suppress(EndOfFile):
            for record in StreamReader(file, skip_magic=True, record_size_limit=len(content)).records:
                yield from self._of_record(record)
                place = file.tell()
        if place != len(content):
            raise ValueError(f'expected records up to byte {len(content)} of the chunk, got them up to {place}')

    def _of_record(self, record: McapRecord) -> Iterator[RecordedMessage]:
        self._declare(record)
        if isinstance(record, Message):
            channel = self._channels.get(record.channel_id)
            if channel is None:
                self._strays += 1
                return
            yield RecordedMessage(channel.topic, self.topics[channel.topic], record.log_time, record.data)

    def _declare(self, record: McapRecord) -> None:
        if isinstance(record, Schema):
            self._schemas[record.id] = record.name
        elif isinstance(record, Channel):
            self.topics.setdefault(record.topic, self._schemas[record.schema_id])
            self._channels[record.id] = record

    def _of_cut_chunk(self, file: BinaryIO, place: int) -> Iterator[RecordedMessage]:
        """Yield the whole messages at the beginning of a chunk that the file ends in, if it is not compressed."""
        with suppress(Exception):
            file.seek(place)
            stream = ReadDataStream(file)
            opcode, _ = stream.read1(), stream.read8()
            chunk = Chunk.read(stream) if opcode == Opcode.CHUNK else None
            if chunk is not None and not chunk.compression:
                yield from self._of_content(chunk.data)

    def _ends_within(self, file: BinaryIO, place: int) -> bool:
        """Say whether the file ends before the record at `place` does, and was not finished."""
        file.seek(max(self._size - len(_MAGIC), 0))
        if file.read() == _MAGIC:
            return False
        file.seek(place)
        head = file.read(_RECORD_HEAD_BYTES)
        known = not head or head[0] in (int(opcode) for opcode in Opcode)
        length = int.from_bytes(head[1:], 'little')
        return len(head) < _RECORD_HEAD_BYTES or (known and place + len(head) + length > self._size)

    def _find_problem(self, file: BinaryIO, broken_at: Optional[int]) -> Optional[str]:
        problems = []
        if self._damaged_chunks:
            problems.append(f'has {self._damaged_chunks} damaged chunk{"s" * (self._damaged_chunks > 1)}')
        if self._strays:
            problems.append(f'has {self._strays} message{"s" * (self._strays > 1)} of no topic')
        if self._holes:
            problems.append(f'is damaged in {self._holes} place{"s" * (self._holes > 1)}, passed over')
        if broken_at is not None:
            if self._has_all:
                problems.append('has a damaged index')
            elif not self._size:
                problems.append('is empty')
            elif self._ends_within(file, broken_at):
                problems.append('is cut off, so that its index is missing (was the recorder killed?)')
            else:
                problems.append(f'is damaged {100 * broken_at // self._size} % into it, and cannot be followed further')
        return ', '.join(problems) or None
