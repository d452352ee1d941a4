"""Writes small bags with a camera and ground truth, in every kind of storage, for tests to damage."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_HUMBLE)
RAW, TEXT = 'sensor_msgs/msg/Image', 'std_msgs/msg/String'
CAMERA, LABELS = '/camera/image', '/camera/labels'
COUNT, STAMP_NS, LOG_NS, PERIOD_NS = 40, 5_000_000_000, 7_000_000_000, 100_000_000

COMPRESSIONS = {'none': CompressionType.NONE, 'lz4': CompressionType.LZ4, 'zstd': CompressionType.ZSTD}


def picture(index: int, topic: str) -> np.ndarray:
    """Return the picture (16, 20) uint8 of one message; noise does not compress."""
    return np.random.default_rng((index, topic == LABELS)).integers(0, 11, (16, 20), np.uint8)


def serialised(index: int, topic: str) -> bytes:
    """Return a mono8 Image as CDR."""
    types = STORE.types
    stamp = types['builtin_interfaces/msg/Time'](*divmod(STAMP_NS + index * PERIOD_NS, 10**9))
    header = types['std_msgs/msg/Header'](stamp, 'camera')
    values = picture(index, topic)
    image = types[RAW](header, *values.shape, 'mono8', 0, values.shape[1], values.reshape(-1))
    return bytes(STORE.serialize_cdr(image, RAW))


def write_folder(
    folder: Path, storage: StoragePlugin, compression: CompressionMode = CompressionMode.NONE, count: int = COUNT,
    topics: tuple[str, ...] = (CAMERA, LABELS),
) -> Path:  # fmt: skip
    """Write a rosbag2 folder with metadata.yaml."""
    writer = Writer(folder, version=8, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        links = [writer.add_connection(topic, RAW, typestore=STORE) for topic in topics]
        for index in range(count):
            for link in links:
                writer.write(link, LOG_NS + index * PERIOD_NS, serialised(index, link.topic))
    return folder


def write_mcap(
    path: Path, compression: str = 'none', chunked: bool = True, garbage_at: Union[int, str] = -1, first: int = 0,
    crcs: bool = True,
) -> Path:  # fmt: skip
    """Write one MCAP file of several chunks; the camera's message `garbage_at`, or each if 'all', is no Image."""
    with path.open('wb') as file:
        writer = McapWriter(file, chunk_size=2000, compression=COMPRESSIONS[compression], use_chunking=chunked,
                            enable_crcs=crcs)  # fmt: skip
        writer.start('ros2', 'test')
        schema = writer.register_schema(RAW, 'ros2msg', STORE.generate_msgdef(RAW)[0].encode())
        channels = {topic: writer.register_channel(topic, 'cdr', schema) for topic in (CAMERA, LABELS)}
        for number in range(first, first + COUNT):
            for topic, channel in channels.items():
                cdr = serialised(number, topic)
                if garbage_at in (number, 'all') and topic == CAMERA:
                    cdr = cdr[:12] + b'\xff' * (len(cdr) - 12)
                log_ns = LOG_NS + number * PERIOD_NS
                writer.add_message(channel, log_ns, cdr, log_ns)
        writer.finish()
    return path


def chunk_places(path: Path) -> list[tuple[int, int]]:
    """Return where each chunk record of an MCAP file begins and ends, by its index."""
    from mcap.reader import make_reader

    with path.open('rb') as file:
        indexes = make_reader(file).get_summary().chunk_indexes
    return [(each.chunk_start_offset, each.chunk_start_offset + each.chunk_length) for each in indexes]


def flip(path: Path, place: int, count: int = 1) -> None:
    """Invert `count` bytes from `place` on."""
    data = bytearray(path.read_bytes())
    data[place : place + count] = bytes(255 - value for value in data[place : place + count])
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    """Keep the first `size` bytes."""
    path.write_bytes(path.read_bytes()[:size])
