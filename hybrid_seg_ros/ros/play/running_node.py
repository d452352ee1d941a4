"""A node that runs in a ROS network of its own, a drive that is played to it, and what it answers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from sensor_msgs.msg import Image
from std_msgs.msg import Int32MultiArray

from hybrid_seg_ros.ros.bags.bag_content import NANOSECONDS, read_stamp_ns
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.image_decoding import grey_values
from hybrid_seg_ros.ros.play.node_process import (
    NODE,
    SEGMENTATION_NODE,
    ChildProcess,
    NodeError,
    node_command,
    own_network,
)
from hybrid_seg_ros.ros.play.replay_options import ReplayReport
from hybrid_seg_ros.ros.play.session import RosSession
from hybrid_seg_ros.ros.qos import reliable_qos

IMAGE = '/camera/image'
"""The node's image topic."""

_DEPTH = 200
_CALL_S = 5.0
_POLL_S = 0.05


@contextmanager
def running_node(
    parameters: Mapping[str, Any], log: Path, start_s: float, image_topic: str = IMAGE,
    program: Sequence[str] = SEGMENTATION_NODE, shared_memory: bool = True,
) -> Iterator[RunningNode]:  # fmt: skip
    """Start the node, or another `program` of its kind, wait until it is active, and end it behind the block.

    It may take `start_s` to load. `shared_memory` is that of `own_network`. Raises NodeError with the end of its log.
    """
    command = node_command(image_topic, parameters, program)
    with (
        own_network(shared_memory),
        ChildProcess(command, log) as process,
        RosSession('hybrid_seg_observer') as session,
    ):
        node = RunningNode(session, process)
        node.wait_until_active(start_s)
        yield node


def drive_parameters(drive: Drive, model: Optional[Path], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a node that the drive is played to; `model` None is the one of the package."""
    transport = 'compressed' if drive.is_compressed else 'raw'
    return {'image_transport': transport, **({'model_path': str(model)} if model else {}), **parameters}


class RunningNode:
    """Listens to a node's diagnostics, asks for its lifecycle state, and notices when its process has ended.

    `on_diagnostics` is called with what each diagnostic task says, by the task's name.
    """

    def __init__(self, session: RosSession, process: ChildProcess) -> None:
        self.session, self.pid = session, process.pid
        self._process = process
        self._diagnostics = 0
        self._values: dict[str, dict[str, str]] = {}
        self._failure = ''
        self.model = ''
        self.on_diagnostics: Callable[[Mapping[str, Mapping[str, str]]], None] = lambda values: None
        session.node.create_subscription(DiagnosticArray, '/diagnostics', self._said, reliable_qos(_DEPTH))
        self._state_client = session.node.create_client(GetState, f'{NODE}/get_state')

    def wait_until_active(self, timeout_s: float) -> None:
        """Wait for it to be loaded and active. Raises NodeError if it fails, ends, or takes longer."""
        deadline = time.monotonic() + timeout_s
        while not self._is_active():
            self.check_alive()
            if self._failure:
                raise self.error(f'segmentation_node is {self._failure}')
            if time.monotonic() > deadline:
                raise self.error(f'segmentation_node is not active after {timeout_s:g} s')
            self.session.spin_for(_POLL_S)

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
        if not self.session.spin_until(lambda: self._diagnostics > before, timeout_s):
            self.check_alive()
            raise self.error(f'segmentation_node sent no diagnostics for {timeout_s:g} s')

    def values(self, task: str) -> Mapping[str, str]:
        """Return the newest key-value pairs of a diagnostic task: 'images', 'segmentation' ...; empty if none came."""
        return self._values.get(task, {})

    def play(self, drive: Drive, report: Path, timeout_s: float, *arguments: str) -> ReplayReport:
        """Play the drive once from a process of its own, as a camera would, and spin meanwhile.

        `arguments` are further ones to `hybrid_seg replay`; masks are awaited for `timeout_s`. The report is left in
        the file `report` (JSON), the log beside it. Raises NodeError if the replay or the node fails.
        """
        report.unlink(missing_ok=True)
        topic = drive.topic(IMAGE)
        remap = ['--remap', f'{drive.camera.name}:={topic}'] if topic != drive.camera.name else []
        limit = [] if drive.limit is None else ['--limit', str(drive.limit)]
        command = [
            sys.executable, '-m', 'hybrid_seg_ros.cli', 'replay', str(drive.bag.path), '--topic', drive.camera.name,
            '--answer-topic', f'{NODE}/mask', '--timeout', str(timeout_s), '--json', str(report), *remap, *limit,
            *arguments,
        ]  # fmt: skip
        with ChildProcess(command, report.with_suffix('.log'), shows_progress=True) as replay:
            while replay.exit_status is None:
                self.check_alive()
                self.session.spin_for(_POLL_S)
            if not report.is_file():
                raise self.error(f'the replay ended with status {replay.exit_status}', replay)
        return ReplayReport(**json.loads(report.read_text(encoding='utf-8')))

    def _is_active(self) -> bool:
        if not self._state_client.service_is_ready():
            return False
        answer = self._state_client.call_async(GetState.Request())
        if not self.session.spin_until(answer.done, _CALL_S):
            self._state_client.remove_pending_request(answer)  # the node is busy loading its model
            return False
        return answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE

    def _said(self, diagnostics: DiagnosticArray) -> None:
        values = {}
        for status in diagnostics.status:
            task = status.name.rpartition(': ')[2]
            values[task] = {pair.key: pair.value for pair in status.values}
            if task == 'model':
                self.model = status.message
                self._failure = status.message if status.level == DiagnosticStatus.ERROR else ''
        self._values.update(values)
        self._diagnostics += 1
        self.on_diagnostics(values)


class NodeAnswers:
    """Masks of one camera as they come, and their token counts.

    `arrivals_s` says when the mask of each stamp came, on the monotonic clock; `usages` are the token counts per stage,
    in the order in which they came.
    """

    def __init__(
        self, session: RosSession, on_mask: Callable[[int, Optional[np.ndarray]], None], outputs: str = NODE,
        stamps_only: bool = False,
    ) -> None:  # fmt: skip
        """`on_mask` is called with stamp and labels (h, w) uint8; `outputs` is what the camera's topics begin with.

        With `stamps_only` labels are None: no mask is deserialised.
        """
        self._on_mask = on_mask
        self.arrivals_s: dict[int, float] = {}
        self.usages: list[dict[str, int]] = []
        session.node.create_subscription(
            Image, f'{outputs}/mask', self._stamp_came if stamps_only else self._mask_came, reliable_qos(_DEPTH),
            raw=stamps_only,
        )  # fmt: skip
        session.node.create_subscription(
            Int32MultiArray, f'{outputs}/token_usage', self._usage_came, reliable_qos(_DEPTH)
        )

    def forget(self) -> None:
        """Begin anew."""
        self.arrivals_s.clear()
        self.usages.clear()

    def is_complete(self, count: int) -> bool:
        """Say whether so many masks and their token counts have come."""
        return min(len(self.arrivals_s), len(self.usages)) >= count

    def tokens(self) -> dict[int, Mapping[str, int]]:
        """Return the token counts of each mask, by stamp.

        They have no stamp, but each follows its mask: the n-th is the n-th mask's. If any got lost, none can be told.
        """
        return dict(zip(self.arrivals_s, self.usages)) if len(self.arrivals_s) == len(self.usages) else {}

    def _stamp_came(self, cdr: bytes) -> None:
        self._note(read_stamp_ns(cdr), None)

    def _mask_came(self, mask: Image) -> None:
        self._note(stamp_of(mask), mask)

    def _note(self, stamp_ns: int, mask: Optional[Image]) -> None:
        self.arrivals_s[stamp_ns] = time.monotonic()
        self._on_mask(stamp_ns, None if mask is None else grey_values(mask))

    def _usage_came(self, usage: Int32MultiArray) -> None:
        self.usages.append(dict(zip(usage.layout.dim[0].label.split(','), usage.data)))


def stamp_of(image: Image) -> int:
    """Return the header stamp in nanoseconds."""
    return image.header.stamp.sec * NANOSECONDS + image.header.stamp.nanosec
