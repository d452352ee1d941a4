"""Play a bag to the real node over DDS, in real time, and collect what it answers to each frame."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Int32MultiArray

from hybrid_seg_ros.evaluation.film.frame import Frame, FrameResult
from hybrid_seg_ros.evaluation.film.report import LiveFigures
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.bags.ground_truth import grey_values
from hybrid_seg_ros.ros.camera_monitor import WORK_STEPS
from hybrid_seg_ros.ros.cdr_header import NANOSECONDS
from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.node_watch import NODE, NodeWatch, node_command
from hybrid_seg_ros.ros.replay_process import run_replay
from hybrid_seg_ros.ros.session import RosSession, reliable_qos

_IMAGE = '/camera/image'
_DEPTH = 200
_LAST_S = 2.0
_DIAGNOSTICS_S = 5.0


@dataclass(frozen=True)
class LiveOptions:
    """How a bag is played: `rate` 1.0 as recorded; the node may take `start_s` to load and `timeout_s` for a frame."""

    rate: float = 1.0
    start_s: float = 600.0
    timeout_s: float = 10.0


@dataclass(frozen=True)
class _Mask:
    """Where a mask lies in the file of masks, as PNG."""

    offset: int
    length: int


class LiveAnswers:
    """What came back for the frames of a bag; call it with a frame for the result, None for one that was dropped.

    `device` is what the node ran on, as it says.
    """

    def __init__(
        self, masks: Path, places: Mapping[int, _Mask], tokens: Mapping[int, Mapping[str, int]],
        latency_ms: Mapping[int, float], figures: LiveFigures, device: str,
    ) -> None:  # fmt: skip
        self._masks, self._places, self._tokens, self._latency_ms = masks, places, tokens, latency_ms
        self.figures, self.device = figures, device

    def __call__(self, frame: Frame) -> Optional[FrameResult]:
        """Return the mask as it was published, its tokens and its latency."""
        place = self._places.get(frame.stamp_ns)
        if place is None:
            return None
        png = np.fromfile(self._masks, np.uint8, place.length, offset=place.offset)
        labels = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
        tokens = self._tokens.get(frame.stamp_ns, {})
        return FrameResult(labels, tokens, latency_ms=self._latency_ms.get(frame.stamp_ns))


def play_to_node(drive: Drive, parameters: Mapping[str, str], options: LiveOptions, folder: Path) -> LiveAnswers:
    """Start the node, play the drive to it once from a third process, and return what it answered.

    `folder` is for logs and masks, and must stay as long as the answers are read. To be called within own_network.
    Raises NodeError with the end of the node's log.
    """
    folder.mkdir()
    transport = 'compressed' if drive.is_compressed else 'raw'
    command = node_command(_IMAGE, {'image_transport': transport, **parameters})
    with (
        ChildProcess(command, folder / 'node.log', os.environ) as node,
        RosSession('hybrid_seg_evaluate') as session,
        _Collector(session, folder / 'masks') as collector,
    ):
        watch = NodeWatch(session, node)
        watch.wait_until_active(options.start_s)
        rate = ('--rate', str(options.rate))
        played = run_replay(session, watch, drive, _IMAGE, folder / 'replay.json', options.timeout_s, *rate)
        session.spin_until(lambda: collector.is_complete(played.answered), _LAST_S)
        if not collector.places:
            raise watch.error(f'no mask came for {played.sent} frames')
        watch.wait_for_diagnostics(_DIAGNOSTICS_S)
        figures = LiveFigures(
            sent=played.sent, answered=len(collector.places), sent_hz=played.sent_hz, answers_hz=played.answers_hz,
            busy_ms=_busy_ms(watch.values('segmentation')),
        )  # fmt: skip
        device = watch.values('model').get('device', '')
    latency_ms = dict(zip(played.answered_stamps_ns, played.latencies_ms))
    return LiveAnswers(folder / 'masks', collector.places, collector.tokens_by_stamp(), latency_ms, figures, device)


class _Collector:
    """Writes every mask to a file as it comes; remembers where, and the token counts that come beside."""

    def __init__(self, session: RosSession, masks: Path) -> None:
        self._file = masks.open('wb')
        self.places: dict[int, _Mask] = {}
        self._usages: list[dict[str, int]] = []
        session.node.create_subscription(Image, f'{NODE}/mask', self._mask_came, reliable_qos(_DEPTH))
        session.node.create_subscription(
            Int32MultiArray, f'{NODE}/token_usage', self._tokens_came, reliable_qos(_DEPTH)
        )

    def __enter__(self) -> _Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def is_complete(self, count: int) -> bool:
        """Say whether so many masks and their token counts have come."""
        return min(len(self.places), len(self._usages)) >= count

    def tokens_by_stamp(self) -> dict[int, Mapping[str, int]]:
        """Return the token counts of each mask.

        They have no stamp, but each follows its mask: the n-th is the n-th mask's. If any got lost, none can be told.
        """
        return dict(zip(self.places, self._usages)) if len(self.places) == len(self._usages) else {}

    def _mask_came(self, mask: Image) -> None:
        png = cv2.imencode('.png', grey_values(mask))[1].tobytes()
        stamp_ns = mask.header.stamp.sec * NANOSECONDS + mask.header.stamp.nanosec
        self.places[stamp_ns] = _Mask(self._file.tell(), len(png))
        self._file.write(png)

    def _tokens_came(self, usage: Int32MultiArray) -> None:
        self._usages.append(dict(zip(usage.layout.dim[0].label.split(','), usage.data)))


def _busy_ms(values: Mapping[str, str]) -> Optional[float]:
    """Return the milliseconds that the node works on a frame (medians), without the time that a frame waits."""
    found = [values.get(f'{step}_p50_ms') for step in WORK_STEPS]
    return None if None in found else sum(map(float, found))
