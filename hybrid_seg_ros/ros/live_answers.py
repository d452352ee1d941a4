"""Play a bag to the real node over DDS, in real time, and collect what it answers to each frame."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Int32MultiArray

from hybrid_seg_ros.evaluation.sequence.frame import Frame, FrameResult
from hybrid_seg_ros.evaluation.sequence.report import LiveFigures
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.bags.ground_truth import image_to_labels
from hybrid_seg_ros.ros.camera_monitor import WORK_STEPS
from hybrid_seg_ros.ros.cdr_header import NANOSECONDS
from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.node_watch import NODE, NodeWatch, node_command
from hybrid_seg_ros.ros.replay_command import replay_command
from hybrid_seg_ros.ros.replay_options import ReplayReport
from hybrid_seg_ros.ros.session import RosSession, reliable_qos

_IMAGE = '/camera/image'
_DEPTH = 200
_POLL_S = 0.05
_LAST_S = 2.0
_DIAGNOSTICS_S = 5.0


@dataclass(frozen=True)
class LiveOptions:
    """How a bag is played: `rate` 1.0 as recorded; the node may take `start_s` to load and `timeout_s` for a frame."""

    rate: float = 1.0
    start_s: float = 600.0
    timeout_s: float = 10.0


@dataclass
class _Answer:
    """A mask as PNG, and the token count per stage."""

    png: bytes
    tokens: Mapping[str, int] = field(default_factory=dict)


class LiveAnswers:
    """What came back for the frames of a bag; call it with a frame for the result, None for one that was dropped."""

    def __init__(self, answers: Mapping[int, _Answer], latency_ms: Mapping[int, float], figures: LiveFigures) -> None:
        self._answers, self._latency_ms, self.figures = answers, latency_ms, figures

    def __call__(self, frame: Frame) -> Optional[FrameResult]:
        """Return the mask, at the size of the image as its user would scale it up, its tokens and its latency."""
        answer = self._answers.get(frame.stamp_ns)
        if answer is None:
            return None
        labels = cv2.imdecode(np.frombuffer(answer.png, np.uint8), cv2.IMREAD_UNCHANGED)
        if labels.shape != frame.image.shape[:2]:
            labels = cv2.resize(labels, frame.image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return FrameResult(labels, answer.tokens, latency_ms=self._latency_ms.get(frame.stamp_ns))


def play_to_node(drive: Drive, parameters: Mapping[str, str], options: LiveOptions, folder: Path) -> LiveAnswers:
    """Start the node, play the drive to it once from a third process, and return what it answered.

    Logs go to `folder`. To be called within own_network. Raises NodeError with the end of the node's log.
    """
    transport = 'compressed' if drive.is_compressed else 'raw'
    command = node_command(_IMAGE, {'image_transport': transport, **parameters})
    with ChildProcess(command, folder / 'node.log', os.environ) as node, RosSession('hybrid_seg_evaluate') as session:
        watch, collector = NodeWatch(session, node), _Collector(session)
        watch.wait_until_active(options.start_s)
        played = _play(session, watch, drive, options, folder)
        session.spin_until(lambda: len(collector.answers) >= played.answered, _LAST_S)
        if not collector.answers:
            raise watch.error(f'no mask came for {played.sent} frames')
        watch.wait_for_diagnostics(_DIAGNOSTICS_S)
        figures = LiveFigures(
            sent=played.sent, answered=len(collector.answers), sent_hz=options.rate * drive.rate_hz,
            answers_hz=played.answers_hz, busy_ms=_busy_ms(watch.values('segmentation')),
        )  # fmt: skip
    return LiveAnswers(collector.answers, dict(zip(played.answered_stamps_ns, played.latencies_ms)), figures)


class _Collector:
    """Keeps every mask, compressed, with its tokens: the node publishes one right after the other."""

    def __init__(self, session: RosSession) -> None:
        self.answers: dict[int, _Answer] = {}
        self._last: Optional[_Answer] = None
        session.node.create_subscription(Image, f'{NODE}/mask', self._mask_came, reliable_qos(_DEPTH))
        session.node.create_subscription(
            Int32MultiArray, f'{NODE}/token_usage', self._tokens_came, reliable_qos(_DEPTH)
        )

    def _mask_came(self, mask: Image) -> None:
        self._last = _Answer(cv2.imencode('.png', image_to_labels(mask))[1].tobytes())
        self.answers[mask.header.stamp.sec * NANOSECONDS + mask.header.stamp.nanosec] = self._last

    def _tokens_came(self, usage: Int32MultiArray) -> None:
        if self._last is not None:
            self._last.tokens = dict(zip(usage.layout.dim[0].label.split(','), usage.data))
            self._last = None


def _play(session: RosSession, watch: NodeWatch, drive: Drive, options: LiveOptions, folder: Path) -> ReplayReport:
    report = folder / 'replay.json'
    report.unlink(missing_ok=True)
    command = replay_command(
        drive, _IMAGE, f'{NODE}/mask', report, options.timeout_s, '--rate', str(options.rate), '--tolerant'
    )
    with ChildProcess(command, folder / 'replay.log', os.environ, shows_progress=True) as replay:
        while replay.exit_status is None:
            watch.check_alive()
            session.spin_for(_POLL_S)
        if not report.is_file():
            raise watch.error(f'the replay ended with status {replay.exit_status}', replay)
    return ReplayReport(**json.loads(report.read_text(encoding='utf-8')))


def _busy_ms(values: Mapping[str, str]) -> float:
    """Return the milliseconds that the node works on a frame (medians): without the time that a frame waits."""
    return sum(float(values.get(f'{step}_p50_ms', 0.0)) for step in WORK_STEPS)
