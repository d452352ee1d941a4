"""A segmentation node as a child process: how it is started, whether it is up, and what it says of itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.session import RosSession, reliable_qos

NODE = '/segmentation_node'
_DEPTH = 50
_CALL_S = 5.0
_POLL_S = 0.05


class NodeError(RuntimeError):
    """A node that does not work; the message holds the end of its log."""


def node_command(
    image_topic: str, parameters: Mapping[str, str], module: str = 'hybrid_seg_ros.ros.segmentation_node'
) -> list[str]:
    """Return the command that runs the node, or another `module` of its kind."""
    command = [sys.executable, '-m', module, '--ros-args', '-r', f'image:={image_topic}']
    return command + [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]


class NodeWatch:
    """Listens to the node's diagnostics, asks for its lifecycle state, and notices when its process has ended."""

    def __init__(self, session: RosSession, process: ChildProcess) -> None:
        self._session, self._process = session, process
        self._diagnostics = 0
        self._values: dict[str, dict[str, str]] = {}
        self.model = ''
        self.model_failure = ''
        session.node.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, reliable_qos(_DEPTH)
        )
        self._state_client = session.node.create_client(GetState, f'{NODE}/get_state')

    def wait_until_active(self, timeout_s: float) -> None:
        """Wait for it to be loaded and active. Raises NodeError if it fails, ends, or takes longer."""
        deadline = time.monotonic() + timeout_s
        while not self._is_active():
            self.check_alive()
            if self.model_failure:
                raise self.error(f'segmentation_node is {self.model_failure}')
            if time.monotonic() > deadline:
                raise self.error(f'segmentation_node is not active after {timeout_s:g} s')
            self._session.spin_for(_POLL_S)

    def check_alive(self) -> None:
        """Raise NodeError if the process has ended."""
        if self._process.exit_status is not None:
            raise self.error(f'segmentation_node ended with status {self._process.exit_status}')

    def error(self, text: str, *others: ChildProcess) -> NodeError:
        """Return an error of this text, with the end of the node's log, and of others'."""
        logs = [f'--- {child.log}\n{child.log_tail()}' for child in (*others, self._process)]
        return NodeError('\n'.join([f'{text}; its log:', *logs]))

    def wait_for_diagnostics(self, timeout_s: float) -> None:
        """Wait for diagnostics newer than those that are there. Raises NodeError if none come."""
        before = self._diagnostics
        if not self._session.spin_until(lambda: self._diagnostics > before, timeout_s):
            self.check_alive()
            raise self.error(f'segmentation_node sent no diagnostics for {timeout_s:g} s')

    def values(self, task: str) -> Mapping[str, str]:
        """Return the newest key-value pairs of a diagnostic task: 'images', 'segmentation' ...; empty if none came."""
        return self._values.get(task, {})

    def _is_active(self) -> bool:
        if not self._state_client.service_is_ready():
            return False
        answer = self._state_client.call_async(GetState.Request())
        if not self._session.spin_until(answer.done, _CALL_S):
            self._state_client.remove_pending_request(answer)  # the node is busy loading its model
            return False
        return answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE

    def _on_diagnostics(self, diagnostics: DiagnosticArray) -> None:
        for status in diagnostics.status:
            task = status.name.rpartition(': ')[2]
            self._values[task] = {pair.key: pair.value for pair in status.values}
            if task == 'model':
                self.model = status.message
                self.model_failure = status.message if status.level == DiagnosticStatus.ERROR else ''
        self._diagnostics += 1
