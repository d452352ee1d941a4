"""Writes small bags with a camera and ground truth, in every kind of storage, for tests to damage, and reads them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from hybrid_seg_ros.ros.bags.bag_reader import BagReader

STORE = get_typestore(Stores.ROS2_HUMBLE)
RAW, COMPRESSED, TEXT = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage', 'std_msgs/msg/String'
CAMERA, LABELS = '/camera/image', '/camera/labels'
COUNT, STAMP_NS, LOG_NS, PERIOD_NS = 40, 5_000_000_000, 7_000_000_000, 100_000_000

ALL = 2 * COUNT
Keys = list[tuple[str, int]]

COMPRESSIONS = {'none': CompressionType.NONE, 'lz4': CompressionType.LZ4, 'zstd': CompressionType.ZSTD}


class Sent(NamedTuple):
    """A message to write."""

    topic: str
    msgtype: str
    log_ns: int
    cdr: bytes


def picture(index: int, topic: str) -> np.ndarray:
    """Return the picture (16, 20) uint8 of one message; noise does not compress."""
    return np.random.default_rng((index, topic == LABELS)).integers(0, 11, (16, 20), np.uint8)


def serialised(index: int, topic: str) -> bytes:
    """Return the mono8 Image of one message as CDR."""
    return image_cdr(picture(index, topic), STAMP_NS + index * PERIOD_NS)


def image_cdr(values: np.ndarray, stamp_ns: int, encoding: str = 'mono8', missing: int = 0) -> bytes:
    """Return an Image of (H, W) bytes as CDR; the last so many are missing."""
    (height, width), data = values.shape, values.reshape(-1)[: values.size - missing]
    image = STORE.types[RAW](_header(stamp_ns), height, width, encoding, 0, width, data)
    return bytes(STORE.serialize_cdr(image, RAW))


def file_cdr(data: bytes, stamp_ns: int, image_format: str = 'png') -> bytes:
    """Return a CompressedImage of a file's bytes as CDR."""
    image = STORE.types[COMPRESSED](_header(stamp_ns), image_format, np.frombuffer(data, np.uint8))
    return bytes(STORE.serialize_cdr(image, COMPRESSED))


def write_folder(
    folder: Path, storage: StoragePlugin, compression: CompressionMode = CompressionMode.NONE, count: int = COUNT,
    topics: tuple[str, ...] = (CAMERA, LABELS),
) -> Path:  # fmt: skip
    """Write a rosbag2 folder with metadata.yaml."""
    messages = (
        Sent(topic, RAW, LOG_NS + index * PERIOD_NS, serialised(index, topic))
        for index in range(count)
        for topic in topics
    )
    return write_messages(folder, messages, storage, compression)


def write_messages(
    folder: Path, messages: Iterable[Sent], storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:  # fmt: skip
    """Write a rosbag2 folder of these messages."""
    writer = Writer(folder, version=8, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        links = {}
        for each in messages:
            if each.topic not in links:
                links[each.topic] = writer.add_connection(each.topic, each.msgtype, typestore=STORE)
            writer.write(links[each.topic], each.log_ns, each.cdr)
    return folder


def write_mcap(
    path: Path, compression: str = 'none', chunked: bool = True, garbage: Optional[Mapping[str, Container[int]]] = None,
    first: int = 0, crcs: bool = True, period_ns: int = PERIOD_NS,
) -> Path:  # fmt: skip
    """Write one MCAP file of several chunks, one recorded each `period_ns`; `garbage` says which are no Image."""
    with path.open('wb') as file:
        writer = McapWriter(file, chunk_size=2000, compression=COMPRESSIONS[compression], use_chunking=chunked,
                            enable_crcs=crcs)  # fmt: skip
        writer.start('ros2', 'test')
        schema = writer.register_schema(RAW, 'ros2msg', STORE.generate_msgdef(RAW)[0].encode())
        channels = {topic: writer.register_channel(topic, 'cdr', schema) for topic in (CAMERA, LABELS)}
        for number in range(first, first + COUNT):
            for topic, channel in channels.items():
                cdr = serialised(number, topic)
                if number in (garbage or {}).get(topic, ()):
                    cdr = cdr[:12] + b'\xff' * (len(cdr) - 12)
                log_ns = LOG_NS + number * period_ns
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


def read(path: Path, topics: tuple[str, ...] = (CAMERA, LABELS)) -> tuple[Keys, Optional[str]]:
    """Read a bag to its end twice, check every message, and return (topic, index) of each, with the damage."""
    with BagReader(path) as bag:
        wanted = [topic for topic in bag.topics if topic.name in topics]
        runs = [list(bag.messages(wanted)) for _ in range(2)]
        keys = [[(m.topic.name, (m.stamp_ns - STAMP_NS) // PERIOD_NS) for m in run] for run in runs]
        assert keys[0] == keys[1]
        for (name, index), message in zip(keys[0], runs[0]):
            assert message.log_ns == LOG_NS + index * PERIOD_NS
            assert bytes(bag.deserialize(message).data) == picture(index, name).tobytes()
        counts = {topic.name: topic.count for topic in bag.topics if topic.name in topics}
        assert counts == {name: sum(key[0] == name for key in keys[0]) for name in counts}
        return keys[0], bag.damage


def expected(count: int = ALL) -> Keys:
    """Return (topic, index) of the first `count` messages."""
    return [(topic, index) for index in range(COUNT) for topic in (CAMERA, LABELS)][:count]


def storage_of(folder: Path) -> Path:
    """Return the only storage file of a bag's folder."""
    (file,) = (file for file in folder.iterdir() if file.name != 'metadata.yaml')
    return file


def _header(stamp_ns: int) -> object:
    stamp = STORE.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
    return STORE.types['std_msgs/msg/Header'](stamp, 'camera')
