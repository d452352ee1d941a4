"""Reads bags tolerantly for tests: what comes is checked against what bag_files wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from bag_files import CAMERA, COUNT, LABELS, LOG_NS, PERIOD_NS, STAMP_NS, picture

from hybrid_seg_ros.ros.bags.bag_reader import BagReader

ALL = 2 * COUNT
Keys = list[tuple[str, int]]


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
