"""The node's process from start to end: its settings, its callbacks, and how it goes."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Optional

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from hybrid_seg_ros.process_memory import keep_freed_memory, wait_briefly
from hybrid_seg_ros.ros.lifecycle_node import SegmentationNode
from hybrid_seg_ros.ros.model_loading import Load, load_configured
from hybrid_seg_ros.ros.node_parameters import files_for_others

_SIGNAL_PERIOD_S = 0.2
"""Python runs signal handlers only between two calls of spin_once."""

_LOG_PERIOD_S = 5.0


def run(args: Optional[Sequence[str]], load: Optional[Load], stop: threading.Event) -> int:
    """Run the node until `stop` is set; return 0, or 1 if it could not be made or had to give up."""
    keep_freed_memory()
    wait_briefly()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = SegmentationNode(load or load_configured, stop)
    except (ParameterException, rclpy_implementation.RCLError) as error:  # the second one for arguments not understood
        print(f'segmentation_node: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    try:
        for path in files_for_others(node, sys.argv if args is None else args):
            node.get_logger().warning(f'{path}: expected a section /** or {node.get_fully_qualified_name()}, has none')
        node.autostart()
        spin(node, node.stop, node.get_parameter('executor').value)
    finally:
        node.finalize()
        node.destroy_node()
        rclpy.try_shutdown()
    if node.has_lost_threads:  # in a library that does not come back: an orderly end would wait for it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(node.exit_status)
    return node.exit_status


def spin(node: Node, stop: threading.Event, executor_name: str = 'single') -> None:
    """Run the callbacks with one of parameters.EXECUTORS, until `stop` is set or the node's context is shut down.

    A callback that fails does not end the others.
    """
    executor = _make_executor(node, executor_name)
    executor.add_node(node)
    while not stop.is_set() and node.context.ok():
        try:
            executor.spin_once(timeout_sec=_SIGNAL_PERIOD_S)
        except ExternalShutdownException:
            break
        except Exception:
            # Whatever it is, one callback that fails is not the end of the others. Up to Humble an invalid lifecycle
            # transition raises here (rclpy#1209), which is a client's mistake.
            node.get_logger().error(
                f'a callback failed: {traceback.format_exc().rstrip()}', throttle_duration_sec=_LOG_PERIOD_S
            )
    executor.remove_node(node)
    executor.shutdown(timeout_sec=1.0)


def _make_executor(node: Node, name: str) -> Executor:
    if name == 'events':
        try:
            from rclpy.experimental.events_executor import EventsExecutor

            return EventsExecutor(context=node.context)
        except ImportError:  # Humble
            node.get_logger().warning('executor: this rclpy has no events executor; the single-threaded one runs')
    return SingleThreadedExecutor(context=node.context)
