"""Bags as others write them and as accidents leave them, each with a few frames: whole, damaged, and of no use."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Optional

import zstandard
from bag_files import (
    CAMERA,
    LABELS,
    LOG_NS,
    PERIOD_NS,
    RAW,
    STORE,
    TEXT,
    Sent,
    chunk_places,
    cut,
    flip,
    serialised,
    write_folder,
    write_messages,
)
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionMode, StoragePlugin

FRAMES = 6
MCAP, DB3 = StoragePlugin.MCAP, StoragePlugin.SQLITE3
NONE, MESSAGE, FILE = CompressionMode.NONE, CompressionMode.MESSAGE, CompressionMode.FILE
Maker = Callable[[Path], Path]
"""Writes a bag into an empty folder, and returns what to give to a command."""


def sent(indices: Iterable[int] = range(FRAMES)) -> list[Sent]:
    """Return the messages of these frames."""
    return [
        Sent(topic, RAW, LOG_NS + index * PERIOD_NS, serialised(index, topic))
        for index in indices for topic in (CAMERA, LABELS)
    ]  # fmt: skip


def mcap(
    folder: Path, messages: Optional[list[Sent]] = None, profile: str = 'ros2', foreign: bool = False, name: str = RAW,
    definition: bool = True, file: str = 'drive.mcap', topics: tuple[str, ...] = (CAMERA, LABELS),
    **options: Any,
) -> Path:  # fmt: skip
    """Write one MCAP file of small chunks; `foreign` adds channels of other kinds, one of them of the camera's name."""
    options = {'compression': CompressionType.NONE, 'chunk_size': 1000, **options}
    with (folder / file).open('wb') as target:
        writer = McapWriter(target, **options)
        writer.start(profile, 'test')
        text = STORE.generate_msgdef(RAW)[0].encode() if definition else b''
        schema = writer.register_schema(name, 'ros2msg' if definition else '', text)
        others = []
        if foreign:
            drawing = writer.register_schema('foxglove.CompressedImage', 'protobuf', b'\x0a\x00')
            ros1 = writer.register_schema('sensor_msgs/Image', 'ros1msg', b'uint8[] data')
            others = [
                writer.register_channel(CAMERA, 'protobuf', drawing), writer.register_channel('/scene', 'json', 0),
                writer.register_channel('/old', 'ros1', ros1), writer.register_channel('/raw', '', 0),
            ]  # fmt: skip
        channels = {topic: writer.register_channel(topic, 'cdr', schema) for topic in topics}
        for each in sent() if messages is None else messages:
            for other in others:
                writer.add_message(other, each.log_ns, b'{}', each.log_ns)
            writer.add_message(channels[each.topic], each.log_ns, each.cdr, each.log_ns)
        writer.finish()
    return folder / file


def rosbag2(
    folder: Path, storage: StoragePlugin = MCAP, compression: CompressionMode = NONE,
    metadata: Optional[Callable[[str], Optional[str]]] = None,
) -> Path:  # fmt: skip
    """Write a folder whose metadata.yaml is changed by `metadata`, or removed if that returns None."""
    bag = write_folder(folder / 'bag', storage, compression, FRAMES)
    text = (bag / 'metadata.yaml').read_text()
    changed = text if metadata is None else metadata(text)
    (bag / 'metadata.yaml').unlink()
    if changed is not None:
        assert changed != text or metadata is None
        (bag / 'metadata.yaml').write_text(changed)
    return bag


def split(folder: Path, *parts: Iterable[int], listed: Optional[Iterable[int]] = None) -> Path:
    """Write a folder of several MCAP files; metadata.yaml lists those with these numbers, or there is none."""
    for number, indices in enumerate(parts):
        mcap(folder, sent(indices), file=f'bag_{number}.mcap')
    if listed is not None:
        names = {'relative_file_paths': [f'bag_{number}.mcap' for number in listed]}
        (folder / 'metadata.yaml').write_text(json.dumps({'rosbag2_bagfile_information': names}))
    return folder


def with_extra_file(folder: Path, name: str) -> Path:
    """Put another recording beside the one that metadata.yaml lists."""
    bag = rosbag2(folder)
    mcap(bag, sent(range(90, 99)), file=name)
    return bag


def renamed(folder: Path, storage: StoragePlugin) -> Path:
    """Rename the file that metadata.yaml lists."""
    bag = rosbag2(folder, storage)
    (file,) = (file for file in bag.iterdir() if file.suffix in ('.mcap', '.db3'))
    file.rename(file.with_stem('drive of monday'))
    return bag


def packed(folder: Path, file: Path, suffix: str) -> Path:
    """Compress a storage file in two frames, as pzstd does, and return it by itself."""
    data = file.read_bytes()
    compress = zstandard.ZstdCompressor().compress
    place = folder / f'{file.name}{suffix}'
    place.write_bytes(compress(data[:3000]) + compress(data[3000:]))
    return place


def db3(folder: Path, *statements: str) -> Path:
    """Write an SQLite bag and change it by these statements."""
    bag = rosbag2(folder, DB3)
    with sqlite3.connect(next(bag.glob('*.db3'))) as database:
        database.executescript(';'.join(statements))
    database.close()
    return bag


def oldest_db3(folder: Path) -> Path:
    """Write the tables as the first rosbag2 did, in the order of receipt, which is not that of time."""
    with sqlite3.connect(folder / 'drive.db3') as database:
        database.execute('CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT)')
        database.execute('CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data)')
        database.executemany('INSERT INTO topics VALUES (?, ?, ?)', [(7, CAMERA, RAW), (9, LABELS, RAW)])
        rows = [(7 if each.topic == CAMERA else 9, each.log_ns, each.cdr) for each in sent([3, 4, 5, 0, 1, 2])]
        database.executemany('INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)', rows)
    database.close()
    return folder / 'drive.db3'


def replaced(pattern: str, by: str) -> Callable[[str], str]:
    """Return a function that changes a text."""
    return lambda text: re.sub(pattern, by, text)


def damaged(maker: Maker, change: Callable[[Path], None]) -> Maker:
    """Return a maker that damages the only storage file of what another wrote."""

    def make(folder: Path) -> Path:
        bag = maker(folder)
        change(bag if bag.is_file() else next(file for file in bag.iterdir() if file.suffix in ('.mcap', '.db3')))
        return bag

    return make


_TOPIC = 'topics (id, name, type, serialization_format, offered_qos_profiles, type_description_hash)'
_QOS = r'(?s)offered_qos_profiles:.*?serialization_format'
METADATA: dict[str, Callable[[str], Optional[str]]] = {
    'missing': lambda text: None,
    'empty': lambda text: '',
    'cut off': lambda text: text[:200],
    'no YAML': lambda text: 'a: [\0',
    'of something else': lambda text: 'rosbag2_bagfile_information: 3',
    'naming no files': replaced(r'(?s)relative_file_paths:\n.*?\n  \w', 'relative_file_paths: []\n  x'),
    'newer, with unknown keys': lambda text: text.replace('version: 8', 'version: 12\n  weather: {rain: 3}'),
    'no storage': replaced('storage_identifier: .*', "storage_identifier: ''"),
    'another storage': replaced('storage_identifier: .*', 'storage_identifier: tape'),
    'wrong counts': replaced('message_count: .*', 'message_count: 0'),
    'QoS a text': replaced(_QOS, 'offered_qos_profiles: "- history: 1\\\\n  depth: 9"\n      serialization_format'),
    'QoS a list': replaced(_QOS, 'offered_qos_profiles: [{depth: 10}]\n      serialization_format'),
    'no QoS': replaced(_QOS, 'serialization_format'),
    'another type hash': replaced('serialization_format', 'type_description_hash: x\n      serialization_format'),
    'another type': replaced('type: sensor_msgs.*', 'type: std_msgs/msg/String'),
    'files in a folder': replaced('- bag', '- bag/bag'),
    'compression that is none': replaced('compression_mode: .*', 'compression_mode: FILE'),
}
"""What metadata.yaml may be like beside a bag that is whole."""

WHOLE: dict[str, Maker] = {
    **{f'{storage.name} metadata {name}': partial(rosbag2, storage=storage, metadata=change)
       for storage in (MCAP, DB3) for name, change in METADATA.items()},
    **{f'{storage.name} {mode.name} metadata {name}': partial(
        rosbag2, storage=storage, compression=mode, metadata=change)
       for storage in (MCAP, DB3)
       for mode, name, change in (
           (MESSAGE, 'as written', None), (MESSAGE, 'missing', METADATA['missing']),
           (FILE, 'as written', None), (FILE, 'missing', METADATA['missing']),
           (FILE, 'of Foxy', replaced(r'\.zstd', '')),
       )},
    'MCAP renamed': partial(renamed, storage=MCAP),
    'DB3 renamed': partial(renamed, storage=DB3),
    'DB3 named as MCAP': lambda folder: oldest_db3(folder).rename(folder / 'drive.mcap'),
    'another file in the folder': lambda folder: with_extra_file(folder, 'other.mcap'),
    'a hidden file of macOS in the folder': lambda folder: with_extra_file(folder, '._bag.mcap'),
    'one file, .zst': lambda folder: packed(folder, mcap(folder), '.zst'),
    'one file, .zstd': lambda folder: packed(folder, oldest_db3(folder), '.zstd'),
    'split': lambda folder: split(folder, range(3), range(3, FRAMES), listed=(0, 1)),
    'split, the later file first': lambda folder: split(folder, range(3, FRAMES), range(3), listed=(0, 1)),
    'split, each with each second frame': lambda folder: split(folder, (1, 3, 5), (0, 2, 4), listed=(0, 1)),
    'split, no metadata': lambda folder: split(folder, (1, 3, 5), (0,), (2, 4)),
    'MCAP with foreign channels': partial(mcap, foreign=True),
    'MCAP with foreign channels, no chunks': partial(mcap, foreign=True, use_chunking=False),
    'MCAP without a profile': partial(mcap, profile=''),
    'MCAP of another profile': partial(mcap, profile='x-mine'),
    'MCAP whose type lacks msg': partial(mcap, name='sensor_msgs/Image'),
    'MCAP without type descriptions': partial(mcap, definition=False),
    'MCAP without chunks, not in order': lambda folder: mcap(folder, sent([4, 1, 0, 5, 2, 3]), use_chunking=False),
    'MCAP not in order': lambda folder: mcap(folder, sent([4, 1, 0, 5, 2, 3])),
    'MCAP in one chunk, not in order': lambda folder: mcap(folder, sent([4, 1, 0, 5, 2, 3]), chunk_size=10**6),
    'MCAP without any index': partial(
        mcap, index_types=IndexType.NONE, repeat_channels=False, repeat_schemas=False, use_statistics=False,
        use_summary_offsets=False,
    ),
    'MCAP without message indexes': partial(mcap, index_types=IndexType.CHUNK),
    'MCAP without channels in its summary': partial(mcap, repeat_channels=False, repeat_schemas=False),
    'MCAP without checksums': partial(mcap, enable_crcs=False),
    'MCAP, lz4': partial(mcap, compression=CompressionType.LZ4),
    'MCAP, zstd': partial(mcap, compression=CompressionType.ZSTD),
    'DB3 of the first version': oldest_db3,
    'DB3 without an index': lambda folder: db3(folder, 'DROP INDEX timestamp_idx'),
    'DB3 with a topic twice': lambda folder: db3(
        folder, f'INSERT INTO {_TOPIC} SELECT 50, name, type, serialization_format, "", "" FROM topics WHERE id = 1',
        'UPDATE messages SET topic_id = 50 WHERE topic_id = 1 AND id > 6',
    ),
    'DB3 with a schema of later': lambda folder: db3(
        folder, 'CREATE TABLE IF NOT EXISTS schema(schema_version INTEGER, ros_distro TEXT)',
        'DELETE FROM schema', 'INSERT INTO schema VALUES (9, "zen")', 'ALTER TABLE topics ADD COLUMN mood TEXT',
    ),
    'DB3 with another encoding beside': lambda folder: db3(
        folder, f'INSERT INTO {_TOPIC} SELECT 50, name, type, "protobuf", "", "" FROM topics WHERE id = 1',
        'INSERT INTO messages SELECT 99, 50, timestamp, data FROM messages WHERE id = 1',
    ),
}  # fmt: skip
"""Bags that lack nothing: all messages come, in time order, and nothing is called damaged."""

DAMAGED: dict[str, Maker] = {
    'MCAP cut off': damaged(mcap, lambda file: cut(file, file.stat().st_size // 2)),
    'MCAP with a bad chunk': damaged(mcap, lambda file: flip(file, sum(chunk_places(file)[2]) // 2)),
    'MCAP with a bad index': damaged(mcap, lambda file: flip(file, file.stat().st_size - 60)),
    'MCAP that ends in zeros': damaged(mcap, lambda file: file.write_bytes(file.read_bytes()[:3000] + bytes(9000))),
    'MCAP with a message that is garbage': lambda folder: mcap(
        folder, [each if place != 4 else each._replace(cdr=each.cdr[:12] + b'\xff' * 40)
                 for place, each in enumerate(sent())]),
    'DB3 cut off': damaged(partial(rosbag2, storage=DB3), lambda file: cut(file, file.stat().st_size - 4096)),
    'DB3 with a message lost': lambda folder: db3(folder, 'UPDATE messages SET data = 7 WHERE id = 3'),
    'split, one file missing': lambda folder: split(folder, range(3), range(3, FRAMES), listed=(0, 1, 2)),
    'split, one file empty': lambda folder: (
        (split(folder, range(3), range(3, FRAMES)) / 'bag_2.mcap').write_bytes(b''), folder)[1],
    'compressed and cut off': lambda folder: (
        lambda file: (cut(file, file.stat().st_size - 300), file)[1])(packed(folder, mcap(folder), '.zstd')),
}  # fmt: skip
"""Bags with bytes missing or wrong: what can be read is."""

USELESS: dict[str, tuple[Maker, str]] = {
    'no messages': (lambda folder: mcap(folder, []), r'found /camera/image \(sensor_msgs/msg/Image, 0 messages\)'),
    'no images': (
        lambda folder: write_messages(folder / 'bag', [Sent('/chatter', TEXT, 1, b'\0\1\0\0\1\0\0\0\0')]),
        r'found /chatter \(std_msgs/msg/String, 1 messages\)',
    ),
    'labels alone': (
        lambda folder: mcap(folder, [each for each in sent() if each.topic == LABELS]), r'found .*/camera/labels \(',
    ),
    'foreign messages alone': (
        lambda folder: db3(folder, 'UPDATE topics SET serialization_format = "json"'),
        r'found /camera/image \(sensor_msgs/msg/Image as json, 6 messages\)',
    ),
    'no file': (lambda folder: folder / 'absent', 'no such file or folder'),
    'a folder of other things': (lambda folder: folder, 'expected a rosbag2 folder .*, found none; it holds nothing'),
    'metadata without a file': (
        lambda folder: (split(folder, listed=(0, 1)), folder)[1], 'its metadata.yaml wants bag_0.mcap, bag_1.mcap',
    ),
    'no bag': (lambda folder: Path(shutil.copy(__file__, folder)), r"or a .mcap or .db3 file, got 'odd_bags.py'"),
    'ROS 1': (
        lambda folder: (folder / 'x.bag', (folder / 'x.bag').write_bytes(b'#ROSBAG V2.0\n'))[0], 'rosbags-convert',
    ),
    'nothing but zeros': (damaged(mcap, lambda file: file.write_bytes(bytes(5000))), 'drive.mcap is no MCAP file'),
    'an empty file': (damaged(mcap, lambda file: file.write_bytes(b'')), 'drive.mcap is empty: nothing could be read'),
    'MCAP cut off at once': (damaged(mcap, lambda file: cut(file, 40)), 'drive.mcap is cut off'),
    'an empty database': (
        damaged(partial(rosbag2, storage=DB3), lambda file: file.write_bytes(b'')), 'bag.db3 is empty: nothing',
    ),
    'a database of something else': (
        lambda folder: db3(folder, 'DROP TABLE topics'), r'is no rosbag2 \(no such table: topics\)',
    ),
    'frames that are all garbage': (
        lambda folder: mcap(folder, [each._replace(cdr=each.cdr[:30]) for each in sent()]),
        '6 messages are damaged and left out, the first on /camera/image at 7.000 s',
    ),
}  # fmt: skip
"""Bags without an image to be had, and what is said of each."""
