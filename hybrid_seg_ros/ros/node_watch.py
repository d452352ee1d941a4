"""NodeWatch: a segmentation node's lifecycle state and diagnostics, seen from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

from hybrid_seg_ros.ros.session import RosSession, reliable_qos

_DEPTH = 50
_CALL_S = 5.0


@dataclass(frozen=True)
class SeenStatus:
    """A diagnostic status: when it came on the monotonic clock, its message and values."""

    seen_s: float
    is_error: bool
    message: str
    values: dict[str, str]


class NodeWatch:
    """Subscribes to the diagnostics of one segmentation node, and keeps them all."""

    def __init__(self, session: RosSession, node_name: str) -> None:
        self._session, self._prefix = session, f'{node_name.lstrip("/")}: '
        self._history: dict[str, list[SeenStatus]] = {}
        session.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, reliable_qos(_DEPTH))
        self._state_client = session.node.create_client(GetState, f'{node_name}/get_state')

    def is_active(self) -> bool:
        """Ask the node for its lifecycle state."""
        if not self._state_client.service_is_ready():
            return False
        answer = self._state_client.call_async(GetState.Request())
        if not self._session.spin_until(answer.done, _CALL_S):
            self._state_client.remove_pending_request(answer)  # the node is busy loading its model
            return False
        return answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE

    @property
    def model(self) -> str:
        """What the node says of its model; '' before it has said anything."""
        last = self.history('model')
        return last[-1].message if last else ''

    @property
    def model_failure(self) -> str:
        """The same, where it is an error."""
        last = self.history('model')
        return last[-1].message if last and last[-1].is_error else ''

    def history(self, task: str) -> list[SeenStatus]:
        """Return what has been said on a task, as `operating point`, oldest first."""
        return self._history.get(task, [])

    def _on_diagnostics(self, diagnostics: DiagnosticArray) -> None:
        now_s = time.monotonic()
        for status in diagnostics.status:
            if status.name.startswith(self._prefix):
                seen = SeenStatus(
                    now_s, status.level == DiagnosticStatus.ERROR, status.message,
                    {item.key: item.value for item in status.values},
                )  # fmt: skip
                self._history.setdefault(status.name[len(self._prefix) :], []).append(seen)
