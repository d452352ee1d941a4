"""DiagnosticsPublisher: gathers what the node says of itself, and publishes it once a second."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType

from hybrid_seg_ros.ros.alarms import Alarms
from hybrid_seg_ros.ros.diagnostics import ERROR, Diagnostics, ModelState
from hybrid_seg_ros.ros.frame_worker import STUCK_S
from hybrid_seg_ros.ros.machine_state import MachineState
from hybrid_seg_ros.ros.node_parameters import read_live_settings

if TYPE_CHECKING:
    from hybrid_seg_ros.ros.lifecycle_node import SegmentationNode

_PERIOD_S = 1.0


class DiagnosticsPublisher:
    """Publishes on /diagnostics by a clock of its own: simulated time may stand still or jump back."""

    def __init__(self, node: 'SegmentationNode', progress: Callable[[], str]) -> None:
        """`progress` says how far a transition is that takes long."""
        self._node, self._progress = node, progress
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 5)
        self._timer = node.create_timer(_PERIOD_S, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._machine = MachineState()
        self._alarms = Alarms()
        self._last_s = 0.0

    def publish_if_due(self) -> None:
        """Publish if a second has passed; called while a callback keeps the timer from running."""
        if time.monotonic() - self._last_s >= _PERIOD_S:
            self.publish()

    def publish(self) -> None:
        """Publish the present state."""
        self._last_s = time.monotonic()
        node, worker, cameras = self._node, self._node.worker, self._node.cameras
        if worker is None:
            progress = self._progress() if node.lifecycle == 'configuring' else ''
            model = ModelState(node.lifecycle, node.failure, progress)
        else:
            at_work_s = worker.seconds_at_work(self._last_s)
            model = ModelState.of(
                worker.pipeline, node.lifecycle, node.failure, at_work_s if at_work_s > STUCK_S else 0.0
            )
        is_listening = node.lifecycle == 'active' and read_live_settings(node).enabled
        name = node.get_fully_qualified_name().lstrip('/')  # with the namespace: there may be several nodes
        diagnostics = Diagnostics(name, f'{socket.gethostname()}:{model.device or "none"}')
        message = DiagnosticArray(status=diagnostics.model_statuses(model))
        if worker is not None:
            message.status += diagnostics.point_statuses(worker.point)
        for camera in cameras:
            message.status += diagnostics.camera_statuses(
                camera.name, camera.input_state(is_listening), camera.health()
            )
        message.status += diagnostics.machine_statuses(self._machine.values())
        for status in self._alarms.news(message.status, self._last_s):
            text = f'{status.name.split(": ", 1)[-1]}: {status.message}'
            if status.level == ERROR:  # a line for each: rclpy refuses another severity from the same one
                node.get_logger().error(text)
            else:
                node.get_logger().warning(text)
        message.header.stamp = node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def destroy(self) -> None:
        """Publish no more."""
        self._timer.cancel()
        self._machine.close()
