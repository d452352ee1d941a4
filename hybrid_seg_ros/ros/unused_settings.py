"""What is given to the node and not taken by it, which ROS 2 passes over in silence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rclpy.node import Node

from hybrid_seg_ros.ros.parameters import DECLARATIONS

_NAMES = tuple(declaration.name for declaration in DECLARATIONS)
_QOS = 'qos_overrides.'


def unknown_names(node: Node) -> list[str]:
    """List names in parameter files and arguments that the node does not have, each with what was probably meant."""
    return [_with_meant(name) for name in _unused(node) if not name.startswith(_QOS)]


def unused_qos_overrides(node: Node) -> list[str]:
    """List those that belong to no topic of an active node, or to a policy that cannot be overridden."""
    return [name for name in _unused(node) if name.startswith(_QOS)]


def refuse_unknown_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is no parameter of the node, with the one that was probably meant."""
    unknown = [name for name in names if name not in (*_NAMES, 'use_sim_time') and not name.startswith(_QOS)]
    if unknown:
        named = ', '.join(map(_with_meant, unknown))
        raise ValueError(f'the node has no parameter {named}; it has {", ".join(_NAMES)}')


def files_for_others(node: Node, arguments: Sequence[str]) -> list[str]:
    """List the parameter files among the arguments that have no section for this node."""
    files = [path for option, path in zip(arguments, arguments[1:]) if option == '--params-file']
    return [path for path in files if not any(_is_for(node, name) for name in _sections(_read(path)))]


def _unused(node: Node) -> list[str]:
    """List what was given and not declared. Where rclpy keeps it is not public: without it, nothing is listed."""
    return [name for name in getattr(node, '_parameter_overrides', {}) if not node.has_parameter(name)]


def _with_meant(name: str) -> str:
    meant = difflib.get_close_matches(name, _NAMES, 1)
    return f'{name} (did you mean {meant[0]}?)' if meant else name


def _read(path: str) -> Mapping[str, Any]:
    return yaml.safe_load(Path(path).read_text(encoding='utf-8')) or {}


def _sections(content: Mapping[str, Any], above: str = '') -> Iterator[str]:
    """Yield the full names of a parameter file's sections; namespaces may be levels of their own."""
    for key, value in content.items():
        name = f'{above}/{key.strip("/")}'
        if isinstance(value, Mapping):
            yield from [name] if 'ros__parameters' in value else _sections(value, name)


def _is_for(node: Node, section: str) -> bool:
    """Tell whether a section's name, with the wildcards of rcl, is that of the node."""
    pattern = re.sub(r'/\*\*|\*', lambda found: r'(/\w+)*' if len(found[0]) > 1 else r'\w+', section)
    return re.fullmatch(pattern, node.get_fully_qualified_name()) is not None
