"""The node imports from rclpy what every distribution from Humble on has; anything newer has a way around it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROS = Path(__file__).parents[2] / 'hybrid_seg_ros' / 'ros'
HUMBLE = {
    'rclpy.clock': {'Clock', 'ClockType'},
    'rclpy.duration': {'Duration'},
    'rclpy.exceptions': {'ParameterException', 'ParameterUninitializedException'},
    'rclpy.executors': {'Executor', 'ExternalShutdownException', 'SingleThreadedExecutor'},
    'rclpy.impl.implementation_singleton': {'rclpy_implementation'},
    'rclpy.impl.rcutils_logger': {'RcutilsLogger'},
    'rclpy.lifecycle': {'LifecycleNode', 'LifecyclePublisher', 'LifecycleState', 'TransitionCallbackReturn'},
    'rclpy.node': {'Node'},
    'rclpy.parameter': {'Parameter'},
    'rclpy.publisher': {'Publisher'},
    'rclpy.qos': {
        'QoSDurabilityPolicy', 'QoSHistoryPolicy', 'QoSPolicyKind', 'QoSProfile', 'QoSReliabilityPolicy',
        'qos_policy_name_from_kind', 'qos_profile_sensor_data',
    },
    'rclpy.qos_overriding_options': {'QoSOverridingOptions'},
    'rclpy.signals': {'SignalHandlerOptions'},
}  # fmt: skip
"""Where Humble's rclpy (3.3) has what; rclpy.clock_type, rclpy.event_handler and rclpy.experimental came later."""


@pytest.mark.parametrize('path', sorted(ROS.rglob('*.py')), ids=lambda path: path.relative_to(ROS).as_posix())
def test_names_are_there_on_humble_or_tried(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    attempts = [part for each in ast.walk(tree) if isinstance(each, ast.Try) for part in each.body]
    tried = {node for part in attempts for node in ast.walk(part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split('.')[0] == 'rclpy' and node not in tried:
            handler = node.module == 'rclpy.qos_event'  # Humble's own, in the `except` of the newer one
            assert handler or {alias.name for alias in node.names} <= HUMBLE.get(node.module, set()), node.module
