"""The newest messages of an SQLite bag (.db3) that a recorder did not close: they are in a log beside the file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Optional


def find_write_ahead_log(path: Path) -> Optional[Path]:
    """Return the log with messages that the file itself does not have yet; None if there is none."""
    log = path.with_name(f'{path.name}-wal')
    return log if log.is_file() and log.stat().st_size else None


def set_aside(path: Path, folder: Path) -> Optional[Path]:
    """Put the file and its log into `folder`, where SQLite may leave the third file that it needs to read them.

    Links where the file system can, else copies. Returns where the file is then; None without a log, or without room.
    """
    log = find_write_ahead_log(path)
    if log is None:
        return None
    places = {source: folder / source.name for source in (path, log)}
    try:
        for source, place in places.items():
            if not place.exists():
                _link_or_copy(source.resolve(), place)
    except OSError:
        for place in places.values():
            place.unlink(missing_ok=True)
        return None
    return places[path]


def _link_or_copy(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # another file system, as a rule
        size, free = source.stat().st_size, shutil.disk_usage(place.parent).free
        if size > free:
            raise OSError(f'{place.parent}: expected room for {size} bytes, got {free}') from None
        shutil.copyfile(source, place)
