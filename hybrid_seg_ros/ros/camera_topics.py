"""Which cameras the node serves, and on which topics: the parameter `cameras`, remapping, who publishes."""

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


def image_topic(node: Node, image: str, transport: str) -> str:
    """Return the topic to listen to: `image` as it is remapped, and `/compressed` below it for that transport.

    Remapping `image` alone is enough for both, as with image_transport.
    """
    topic = node.resolve_topic_name(image)
    return f'{topic}/compressed' if transport == 'compressed' else topic


def camera_info_topic(node: Node, image: str) -> str:
    """Return the calibration's topic: the `camera_info` beside `image` if that is remapped, else beside its topic."""
    beside = image.rsplit('/', 1)[0] + '/camera_info' if '/' in image else 'camera_info'
    return remapped(node, beside) or node.resolve_topic_name(image).rsplit('/', 1)[0] + '/camera_info'


def offered_types(node: Node, topic: str) -> list[str]:
    """Return the message type of each publisher of a topic."""
    return [info.topic_type for info in node.get_publishers_info_by_topic(topic)]


def other_topic(node: Node, topic: str) -> str:
    """Return the image topic of the other transport, if somebody publishes it; '' if nobody does."""
    plain = topic.removesuffix('/compressed')
    for other in (f'{topic}/compressed', plain, plain.removesuffix('/compressed')):
        if other != topic and offered_types(node, other):
            return other
    return ''
