"""Which cameras the node serves: the parameter `cameras` as names and topics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a launch file reads the parameters without rclpy
    from rclpy.node import Node

_LEGAL_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
_LEGAL_TOPIC = re.compile(r'/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*')
_OWN_OUTPUTS = ('mask', 'confidence', 'overlay', 'color_mask', 'token_map', 'token_usage', 'fps', 'camera_info',
                'label_info', 'enable')  # fmt: skip


@dataclass(frozen=True)
class CameraTopic:
    """A camera's name, '' where there is only one, and its image topic, which remapping may change."""

    name: str = ''
    image: str = 'image'

    @property
    def output_prefix(self) -> str:
        """What its output topics begin with: the node's private name, and the camera's below it."""
        return f'~/{self.name}' if self.name else '~'


def parse_cameras(entries: Sequence[str]) -> tuple[CameraTopic, ...]:
    """Read entries like `front` (topic `front/image`) or `front:=/front/image_raw`.

    None, or only empty ones, mean one camera without a name, on the topic `image`. Raises ValueError.
    """
    given = [entry.strip() for entry in entries if entry.strip()]
    if not given:
        return (CameraTopic(),)
    cameras = []
    for entry in given:
        name, assigned, topic = entry.partition(':=')
        if not _LEGAL_NAME.fullmatch(name) or (assigned and not _LEGAL_TOPIC.fullmatch(topic)):
            raise ValueError(
                f'cameras: expected entries like front or front:=/front/image_raw (letters, digits and underscores), '
                f'got {entry!r}'
            )
        if name in _OWN_OUTPUTS:
            raise ValueError(f'cameras: {name!r} is the name of an output topic; expected another one')
        cameras.append(CameraTopic(name, topic or f'{name}/image'))
    for what, values in (('name', [c.name for c in cameras]), ('topic', [c.image for c in cameras])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f'cameras: expected each {what} once, got {", ".join(twice)} more than once')
    return tuple(cameras)


def remapped(node: Node, name: str) -> str:
    """Return what remapping makes of a topic's name; '' where it leaves it alone."""
    topic = node.resolve_topic_name(name)
    return '' if topic == node.resolve_topic_name(name, only_expand=True) else topic


def cameras_problem(entries: Sequence[str]) -> str:
    """Return what is wrong with a value of the parameter, '' if nothing is."""
    try:
        parse_cameras(entries)
    except (ValueError, AttributeError, TypeError) as error:
        return str(error)
    return ''
