"""Read the messages of a damaged SQLite bag (.db3) in the order they were written, up to the damage.

A recorder that was killed may leave the newest messages in a write-ahead log beside the file; they are read, too.
Nothing is left behind beside the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Optional

from hybrid_seg_ros.ros.bags.recorded_message import RecordedMessage
from hybrid_seg_ros.ros.bags.write_ahead_log import find_write_ahead_log


class DamagedDb3:
    """One file. `topics` (name: type) and `problem` are complete once `messages` has come to its end.

    Its write-ahead log is read from `aside` (write_ahead_log.set_aside), and passed over without that.
    """

    def __init__(self, path: Path, aside: Optional[Path] = None) -> None:
        self._path, self._aside = path, aside
        self.topics: dict[str, str] = {}
        self.problem: Optional[str] = None

    def messages(self) -> Iterator[RecordedMessage]:
        """Yield what can be read, in the order it was written."""
        self.problem = None
        if not self._path.stat().st_size:
            self.problem = 'is empty'
            return
        try:
            with closing(self._connect()) as database:
                database.execute('PRAGMA writable_schema = ON')  # else SQLite refuses a file that is cut off
                topics = {key: (name, msgtype) for key, name, msgtype in database.execute(_TOPICS)}
                self.topics = dict(topics.values())
                for key, log_ns, cdr in database.execute(_MESSAGES):
                    if key not in topics or not isinstance(log_ns, int) or not isinstance(cdr, bytes):
                        raise sqlite3.DatabaseError('a row is no message')  # as of pages that read as zeros
                    yield RecordedMessage(*topics[key], log_ns, cdr)
        except sqlite3.Error as error:
            self.problem = f'is damaged or cut off ({error})'

    def _connect(self) -> sqlite3.Connection:
        """Open the file for reading, with its write-ahead log if there is one."""
        log = find_write_ahead_log(self._path)
        if log is not None and self._aside is not None:
            database = sqlite3.connect(f'{self._aside.absolute().as_uri()}?mode=ro', uri=True)
            try:
                database.execute(_TOPICS)
            except sqlite3.OperationalError:
                database.close()
            else:
                self.problem = f'was left open, with a write-ahead log {log.name}'
                return database
        if log is not None:
            self.problem = f'was left open, and its write-ahead log {log.name} cannot be read here'
        return sqlite3.connect(f'{self._path.absolute().as_uri()}?mode=ro&immutable=1', uri=True)


_TOPICS = 'SELECT id, name, type FROM topics'
_MESSAGES = 'SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id'
