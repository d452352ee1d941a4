"""Read an SQLite file of a bag (.db3), whole or damaged: in time order, up to the damage.

A recorder that was killed may leave the newest messages in a write-ahead log beside the file; they are read, too.
Nothing is left behind beside the file.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Optional

import numpy as np

from hybrid_seg_ros.ros.bags.bag_content import CDR, RecordedMessage, StoredTopic

MAGIC = b'SQLite format 3\0'
_ROW = np.dtype([('log_ns', np.int64), ('id', np.int64), ('topic', np.int64)])


class Db3Storage:
    """One file. `counts` are of what it says it holds; `problem` is complete once all is read."""

    def __init__(self, path: Path, scratch: Callable[[], Path]) -> None:
        """Read what there is. A write-ahead log is read from the folder that `scratch` gives."""
        self._uri = _uri(path, '&immutable=1')
        self._problems: list[str] = []
        self._lost: set[int] = set()
        self._topics: dict[int, StoredTopic] = {}
        self._rows = np.empty(0, _ROW)  # in time order
        if path.stat().st_size:
            self._take_log(path, scratch)
            self._find_messages()
        else:
            self._problems.append('is empty')
        self.counts: Counter[StoredTopic] = Counter(dict.fromkeys(self._topics.values(), 0))
        for key, topic in self._topics.items():
            self.counts[topic] += int((self._rows['topic'] == key).sum())
        strays = len(self._rows) - sum(self.counts.values())
        if strays:
            self._problems.append(f'has {strays} message{"s" * (strays > 1)} of no topic')

    @property
    def times_ns(self) -> tuple[int, int]:
        """The times of the first and of the last message; zeros without any."""
        return (int(self._rows['log_ns'][0]), int(self._rows['log_ns'][-1])) if len(self._rows) else (0, 0)

    @property
    def problem(self) -> Optional[str]:
        """What is wrong with the bytes, as the rest of a sentence about the file; None if nothing is known to be."""
        lost = len(self._lost)
        found = [f'has {lost} message{"s" * (lost > 1)} that cannot be read'] if lost else []
        return ', '.join(self._problems + found) or None

    def messages(self, topics: Collection[StoredTopic]) -> Iterator[RecordedMessage]:
        """Yield the messages of these topics in time order."""
        keys = [key for key, topic in self._topics.items() if topic in topics]
        with closing(self._connect()) as database:
            for log_ns, row, key in self._rows[np.isin(self._rows['topic'], keys)].tolist():
                try:
                    (cdr,) = database.execute('SELECT data FROM messages WHERE rowid = ?', (row,)).fetchone()
                except (sqlite3.Error, TypeError):
                    cdr = None
                if isinstance(cdr, bytes):
                    yield RecordedMessage(self._topics[key], log_ns, cdr)
                else:
                    self._lost.add(row)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
        database.execute('PRAGMA writable_schema = ON')  # else SQLite refuses a file that is cut off
        return database

    def _find_messages(self) -> None:
        """Note the topics, and where their messages are, as far as they can be read."""
        try:
            with closing(self._connect()) as database:
                cursor = database.execute('SELECT * FROM topics')
                names = [column[0] for column in cursor.description]
                for row in (dict(zip(names, values)) for values in cursor):
                    encoding = row.get('serialization_format') or CDR
                    self._topics[row['id']] = StoredTopic(str(row['name']), str(row['type']), str(encoding))
                self._rows = np.sort(np.fromiter(self._locations(database), _ROW))
        except (sqlite3.Error, KeyError, UnicodeDecodeError) as error:
            self._note_damage(error)

    def _locations(self, database: sqlite3.Connection) -> Iterator[tuple[int, int, int]]:
        try:
            for row in database.execute('SELECT timestamp, rowid, topic_id FROM messages NOT INDEXED ORDER BY rowid'):
                if not type(row[0]) is type(row[2]) is int:
                    raise sqlite3.DatabaseError('a row is no message')  # as of pages that read as zeros
                yield row
        except sqlite3.Error as error:
            self._note_damage(error)

    def _note_damage(self, error: Exception) -> None:
        is_other = isinstance(error, KeyError) or 'no such' in str(error)
        self._problems.append(f'is {"no rosbag2" if is_other else "damaged or cut off"} ({error})')

    def _take_log(self, path: Path, scratch: Callable[[], Path]) -> None:
        """Read the file with its write-ahead log, if it has one that holds messages."""
        log = path.with_name(f'{path.name}-wal')
        if not log.is_file() or not log.stat().st_size:
            return
        immutable = self._uri
        try:
            self._uri = _uri(_set_aside(path, log, scratch()))
            with closing(self._connect()) as database:
                database.execute('SELECT 1 FROM topics').fetchone()
        except (OSError, sqlite3.Error):
            self._uri = immutable
            self._problems.append(f'was left open, and its write-ahead log {log.name} cannot be read here')


def _uri(path: Path, options: str = '') -> str:
    return f'{path.absolute().as_uri()}?mode=ro{options}'


def _set_aside(path: Path, log: Path, folder: Path) -> Path:
    """Put the file and its log into `folder`, where SQLite may leave the third file that it needs to read them.

    Links where the file system can, else copies. Returns where the file is then. Raises OSError without room.
    """
    for source in (path, log):
        place = folder / source.name
        try:
            os.link(source.resolve(), place)
        except OSError:  # another file system, as a rule
            size, free = source.stat().st_size, shutil.disk_usage(folder).free
            if size > free:
                raise OSError(f'{folder}: expected room for {size} bytes, got {free}') from None
            shutil.copyfile(source, place)
    return folder / path.name
