"""A short-lived ROS node for a command: its own context, spun only while the command waits for something."""

from __future__ import annotations

import time
from collections.abc import Callable

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

_LONGEST_WAIT_S = 0.1
"""Ctrl-C reaches Python only between two waits."""


class RosSession:
    """A node and its executor; a context manager."""

    def __init__(self, node_name: str) -> None:
        self._context = rclpy.Context()
        # no signal handlers: a command ends by KeyboardInterrupt like any other Python program
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node: Node = rclpy.create_node(node_name, context=self._context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def __enter__(self) -> RosSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    def spin_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Run callbacks until `condition()` holds; return False if it still does not after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(remaining, _LONGEST_WAIT_S))
        return True

    def spin_for(self, duration_s: float) -> None:
        """Run callbacks for `duration_s` seconds."""
        self.spin_until(lambda: False, duration_s)
