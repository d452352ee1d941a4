"""Run a node's callbacks until it is told to stop; one that fails does not end the others."""

from __future__ import annotations

import threading
import traceback

from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

_SIGNAL_PERIOD_S = 0.2
"""Python runs signal handlers only between two calls of spin_once."""

_LOG_PERIOD_S = 5.0


def spin(node: Node, stop: threading.Event, executor_name: str = 'single') -> None:
    """Run the callbacks with one of parameters.EXECUTORS, until `stop` is set or the node's context is shut down."""
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
