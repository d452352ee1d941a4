"""The node's dealings with its parameters: declaring, reading and judging them, and telling what nobody takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterUninitializedException
from rclpy.node import Node
from rclpy.parameter import Parameter

from hybrid_seg_ros.ros.parameters import (
    CONFIGURE,
    DECLARATIONS,
    LIVE,
    START,
    Declaration,
    LiveSettings,
    NodeConfig,
    with_meant,
)

_BY_NAME = {declaration.name: declaration for declaration in DECLARATIONS}
_QOS = 'qos_overrides.'


def declare_parameters(node: Node) -> None:
    """Declare all parameters. Raises rclpy's ParameterException for start values of wrong type or out of range."""
    for declaration in DECLARATIONS:
        node.declare_parameter(declaration.name, declaration.default, _descriptor(declaration))


def read_config(node: Node) -> NodeConfig:
    """Return the present values. Raises ValueError that names the legal ones, for live parameters, too."""
    for declaration in DECLARATIONS:
        refusal = declaration.refusal(_value(node, declaration.name))
        if refusal:
            raise ValueError(refusal)
    return NodeConfig(**{field.name: _value(node, field.name) for field in fields(NodeConfig)})


def read_live_settings(node: Node) -> LiveSettings:
    """Return the present values of the live parameters; cheap enough for every frame."""
    return LiveSettings(**{name: node.get_parameter(name).value for name in LiveSettings.__dataclass_fields__})


def check_parameters(
    parameters: Sequence[Parameter], is_configured: bool, live_problem: Callable[[Mapping[str, Any]], str]
) -> SetParametersResult:
    """Judge a set request, after rclpy has checked types and ranges; parameters that are not ours pass.

    `live_problem(values)` says what the loaded model has against new values of live parameters, taken together; ''
    for nothing.
    """
    live: dict[str, Any] = {}
    refusal = ''
    for parameter in parameters:
        declaration = _BY_NAME.get(parameter.name)
        if declaration is None:
            continue
        refusal = refusal or declaration.refusal(parameter.value)
        if not refusal and declaration.when == CONFIGURE and is_configured:
            refusal = f'{parameter.name}: fixed while the node is configured; cleanup, set it, configure'
        if declaration.when == LIVE:
            live[parameter.name] = parameter.value
    if not refusal and live:
        refusal = live_problem(live)
    return SetParametersResult(successful=not refusal, reason=refusal)


def unknown_names(node: Node) -> list[str]:
    """List names in parameter files and arguments that the node does not have, each with what was probably meant."""
    return [with_meant(name) for name in _unused(node) if not name.startswith(_QOS)]


def unused_qos_overrides(node: Node) -> list[str]:
    """List those that belong to no topic of an active node, or to a policy that cannot be overridden."""
    return [name for name in _unused(node) if name.startswith(_QOS)]


def files_for_others(node: Node, arguments: Sequence[str]) -> list[str]:
    """List the parameter files among the arguments that have no section for this node."""
    files = [path for option, path in zip(arguments, arguments[1:]) if option == '--params-file']
    read = {path: yaml.safe_load(Path(path).read_text(encoding='utf-8')) or {} for path in files}
    return [path for path in files if not any(_is_for(node, name) for name in _sections(read[path]))]


def _descriptor(declaration: Declaration) -> ParameterDescriptor:
    """Return what `ros2 param describe` shows, and what rclpy enforces: range and read_only."""
    legal, low_high, when = declaration.legal, declaration.low_high, declaration.when
    descriptor = ParameterDescriptor(description=declaration.description, read_only=when == START)
    descriptor.additional_constraints = f'One of: {", ".join(legal)}. {when}' if legal else when
    if low_high is not None and isinstance(declaration.default, int):
        descriptor.integer_range = [IntegerRange(from_value=low_high[0], to_value=low_high[1])]
    elif low_high is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=low_high[0], to_value=low_high[1])]
    # people write `keep: 300` and `threshold: 1`, which ROS 2 reads as integers; Declaration.refusal checks these
    descriptor.dynamic_typing = isinstance(declaration.default, float)
    return descriptor


def _value(node: Node, name: str) -> Any:
    try:
        return node.get_parameter(name).value
    except ParameterUninitializedException:  # an empty array, which has no type
        return _BY_NAME[name].default


def _unused(node: Node) -> list[str]:
    """List what was given and not declared. Where rclpy keeps it is not public: without it, nothing is listed."""
    return [name for name in getattr(node, '_parameter_overrides', {}) if not node.has_parameter(name)]


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
