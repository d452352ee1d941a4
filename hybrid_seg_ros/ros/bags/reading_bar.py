"""A progress bar for what is read of a bag before anything else shows."""

from __future__ import annotations

from collections.abc import Iterable

from tqdm import tqdm

from hybrid_seg_ros.ros.bags.bag_topic import BagMessage

_MANY = 300
"""Fewer messages are there at once, and a bar would only flicker."""


def with_bar(messages: Iterable[BagMessage], title: str, total: int) -> Iterable[BagMessage]:
    """Return the messages; where there are many, a bar counts them on a terminal, and is gone when all are read."""
    return tqdm(messages, title, total, leave=False, unit='frame', disable=None if total > _MANY else True)
