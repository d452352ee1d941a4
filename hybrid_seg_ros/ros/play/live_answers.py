"""What the real node answers to the frames of a bag that is played to it over DDS, in real time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.evaluation.film.frame import FrameResult, VideoFrame
from hybrid_seg_ros.evaluation.film.report import LiveCounts
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.health.camera_monitor import WORK_STEPS
from hybrid_seg_ros.ros.play.running_node import NodeAnswers, RunningNode, drive_parameters, running_node

_START_S, _FRAME_S = 600.0, 10.0
"""How long the node may take to load, and for a frame."""
_LAST_S = 2.0
_DIAGNOSTICS_S = 5.0


class LiveAnswers:
    """What came back for the frames of a bag; call it with a frame for the result, None for one that was dropped.

    `figures` are those of the play, `device` is what the node ran on, as it says.
    """

    def __init__(self, drive: Drive, parameters: Mapping[str, str], rate: float, folder: Path) -> None:
        """Start the node, play the drive to it once at so many times its speed, and collect the masks.

        `folder` is made for logs and masks, and must stay as long as the answers are read. Raises NodeError with the
        end of the node's log.
        """
        folder.mkdir()
        self._masks = folder / 'masks'
        self._places: dict[int, tuple[int, int]] = {}  # where each mask begins in the file, and its length, as PNG
        with (
            self._masks.open('wb') as self._file,
            running_node(drive_parameters(drive, None, parameters), folder / 'node.log', _START_S) as node,
        ):
            answers = NodeAnswers(node.session, self._keep)
            played = node.play(drive, folder / 'replay.json', _FRAME_S, '--rate', str(rate))
            node.session.spin_until(lambda: answers.is_complete(played.answered), _LAST_S)
            if not self._places:
                raise node.error(f'no mask came for {played.sent} frames')
            node.wait_for_diagnostics(_DIAGNOSTICS_S)
            self.figures = LiveCounts(
                sent=played.sent, answered=len(self._places), sent_hz=played.sent_hz, answers_hz=played.answers_hz,
                busy_ms=_busy_ms(node),
            )  # fmt: skip
            self.device = node.values('model').get('device', '')
        self._tokens = answers.tokens()
        self._latency_ms = dict(zip(played.answered_stamps_ns, played.latencies_ms))

    def __call__(self, frame: VideoFrame) -> Optional[FrameResult]:
        """Return the mask as it was published, its tokens and its latency."""
        if frame.stamp_ns not in self._places:
            return None
        offset, length = self._places[frame.stamp_ns]
        labels = cv2.imdecode(np.fromfile(self._masks, np.uint8, length, offset=offset), cv2.IMREAD_UNCHANGED)
        tokens = self._tokens.get(frame.stamp_ns, {})
        return FrameResult(labels, tokens, latency_ms=self._latency_ms.get(frame.stamp_ns))

    def _keep(self, stamp_ns: int, labels: np.ndarray) -> None:
        """Write a mask to the file as it comes: those of a long drive do not fit into memory."""
        png = cv2.imencode('.png', labels)[1].tobytes()
        self._places[stamp_ns] = self._file.tell(), len(png)
        self._file.write(png)


def _busy_ms(node: RunningNode) -> Optional[float]:
    """Return the milliseconds that the node works on a frame (medians), without the time that a frame waits."""
    found = [node.values('segmentation').get(f'{step}_p50_ms') for step in WORK_STEPS]
    return None if None in found else sum(map(float, found))
