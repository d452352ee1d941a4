"""How the node tells how it is: on /diagnostics once a second, and in ROS's log, where the core's lines go, too."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable, Sequence

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node

from hybrid_seg_ros.ros.health.diagnostics import ERROR, OK, NodeState, node_statuses
from hybrid_seg_ros.ros.health.machine_state import MachineState

_CORE = 'hybrid_seg_ros'
_PERIOD_S = 1.0
_AGAIN_S = 60.0
_SOONEST_S = 5.0
_TOLD_ELSEWHERE = ('bad frame', 'segmentation failed')
"""Beginnings of messages that are logged when they happen."""


class DiagnosticsPublisher:
    """Publishes what the node says of itself, and logs what has become worse.

    By a clock of its own: simulated time may stand still or jump back.
    """

    def __init__(self, node: Node, read_state: Callable[[], NodeState]) -> None:
        self._node, self._read_state = node, read_state
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
        state, logger = self._read_state(), self._node.get_logger()
        name = self._node.get_fully_qualified_name().lstrip('/')  # with the namespace: there may be several nodes
        hardware_id = f'{socket.gethostname()}:{state.model.device or "none"}'
        message = DiagnosticArray(status=node_statuses(state, self._machine.values(), name, hardware_id))
        for status in self._alarms.news(message.status, self._last_s):
            text = f'{status.name.split(": ", 1)[-1]}: {status.message}'
            if status.level == ERROR:  # a line for each: rclpy refuses another severity from the same one
                logger.error(text)
            else:
                logger.warning(text)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def destroy(self) -> None:
        """Publish no more."""
        self._timer.cancel()
        self._machine.close()


class Alarms:
    """Picks what has become worse or says something else, and once a minute what stays bad or comes and goes."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[bytes, float]] = {}
        self._said: dict[tuple[str, str], float] = {}

    def news(self, statuses: Sequence[DiagnosticStatus], now_s: float) -> list[DiagnosticStatus]:
        """Return the statuses to log; `now_s` is that of a monotonic clock."""
        return [status for status in statuses if self._is_news(status, now_s)]

    def _is_news(self, status: DiagnosticStatus, now_s: float) -> bool:
        level, at_s = self._told.get(status.name, (OK, -_AGAIN_S))
        if status.level == OK:
            self._told[status.name] = (OK, at_s)
            return False
        if status.message.startswith(_TOLD_ELSEWHERE) or ' failed: ' in status.message:
            return False
        words = (status.name, re.sub(r'\d', '', status.message))  # other numbers are no other message
        self._said = {key: said_s for key, said_s in self._said.items() if now_s - said_s < _AGAIN_S}
        if now_s - at_s < _SOONEST_S or (words in self._said and status.level <= level):
            return False
        self._told[status.name] = (status.level, now_s)
        self._said[words] = now_s
        return True


class LogForwarder(logging.Handler):
    """Handler of this package's loggers from `attach` to `detach`; `last` is the last thing said."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger
        self.last = ''
        self.setFormatter(logging.Formatter('%(message)s'))

    def attach(self) -> None:
        """Forward from now on."""
        logging.getLogger(_CORE).addHandler(self)
        logging.getLogger(_CORE).setLevel(logging.INFO)

    def detach(self) -> None:
        """Forward no more."""
        logging.getLogger(_CORE).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record; a line per level, because rclpy refuses another severity from the same line."""
        text = self.last = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
