"""SQLite files that are damaged, cut off or left open, read tolerantly, with no trace beside them."""

import errno
import os
import re
import shutil
import sqlite3
from types import SimpleNamespace

import pytest
from bag_files import CAMERA, LABELS, LOG_NS, PERIOD_NS, cut, expected, flip, read, serialised, storage_of, write_folder
from rosbags.rosbag2 import CompressionMode, StoragePlugin

DB3 = StoragePlugin.SQLITE3


@pytest.mark.parametrize('kept', [0.3, 0.6, 0.9])
@pytest.mark.parametrize('compression', [CompressionMode.NONE, CompressionMode.MESSAGE])
def test_a_database_cut_off(tmp_path, compression, kept):
    folder = write_folder(tmp_path / 'bag', DB3, compression, count=200)
    file = storage_of(folder)
    cut(file, int(file.stat().st_size * kept))
    messages, damage = read(folder)
    everything = [(topic, index) for index in range(200) for topic in (CAMERA, LABELS)]
    assert messages == everything[: len(messages)]
    assert 400 * (kept - 0.2) < len(messages) < 400 * kept
    assert re.match(rf'bag.db3 is damaged or cut off \(.*(malformed|row).*\): {len(messages)} messages', damage)


def test_a_database_with_a_bad_page(tmp_path):
    folder = write_folder(tmp_path / 'bag', DB3, count=200)
    file = storage_of(folder)
    flip(file, file.stat().st_size // 8192 * 4096, 4096)
    messages, damage = read(folder)
    assert 100 < len(messages) < 300 and 'malformed' in damage


@pytest.mark.parametrize('room', ['to link', 'to copy', None])
def test_a_write_ahead_log_is_read(tmp_path, monkeypatch, room):
    """As the `resilient` profile of rosbag2 leaves it when it is killed: the newest messages are not in the file.

    Nothing is left beside it.
    """
    folder = write_folder(tmp_path / 'bag', DB3, count=10)
    (folder / 'metadata.yaml').unlink()
    file = storage_of(folder)
    recorder = sqlite3.connect(file)
    recorder.execute('PRAGMA journal_mode = WAL')
    recorder.execute('INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)',
                     (LOG_NS + 10 * PERIOD_NS, serialised(10, CAMERA)))  # fmt: skip
    recorder.commit()
    (tmp_path / 'killed').mkdir()
    for each in folder.iterdir():
        if not each.name.endswith('-shm'):
            shutil.copy(each, tmp_path / 'killed')
    recorder.close()
    killed = tmp_path / 'killed'
    before = {each.name: each.read_bytes() for each in killed.iterdir()}
    if room != 'to link':
        monkeypatch.setattr(os, 'link', no_link)
    if room is None:
        monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=0))
    for path in (killed, killed / file.name):
        messages, damage = read(path)
        if room is None:
            assert messages == expected(20)
            assert 'bag.db3 was left open, and its write-ahead log bag.db3-wal cannot be read here: 20' in damage
        else:
            assert messages == [*expected(20), (CAMERA, 10)]
            assert damage is None
        assert {each.name: each.read_bytes() for each in killed.iterdir()} == before


def no_link(source, place):
    raise OSError(errno.EXDEV, 'as from one file system to another')

