"""Play a camera of a bag to a node from a process of its own, as a camera would."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.node_watch import NODE, NodeWatch
from hybrid_seg_ros.ros.replay_options import ReplayReport
from hybrid_seg_ros.ros.session import RosSession

_POLL_S = 0.05


def run_replay(
    session: RosSession, watch: NodeWatch, drive: Drive, image_topic: str, report: Path, timeout_s: float,
    *arguments: str,
) -> ReplayReport:  # fmt: skip
    """Play the drive once, with further `arguments` to `hybrid_seg replay`, and spin meanwhile.

    `image_topic` is the node's, which gets /compressed where the images are; masks are awaited for `timeout_s`. The
    report is left in the file `report` (JSON), the log beside it. Raises NodeError if the replay or the node fails.
    """
    report.unlink(missing_ok=True)
    command = _replay_command(drive, image_topic, report, timeout_s, *arguments)
    with ChildProcess(command, report.with_suffix('.log'), os.environ, shows_progress=True) as replay:
        while replay.exit_status is None:
            watch.check_alive()
            session.spin_for(_POLL_S)
        if not report.is_file():
            raise watch.error(f'the replay ended with status {replay.exit_status}', replay)
    return ReplayReport(**json.loads(report.read_text(encoding='utf-8')))


def _replay_command(drive: Drive, image_topic: str, report: Path, timeout_s: float, *arguments: str) -> list[str]:
    topic = drive.topic(image_topic)
    remap = ['--remap', f'{drive.camera.name}:={topic}'] if topic != drive.camera.name else []
    limit = [] if drive.limit is None else ['--limit', str(drive.limit)]
    return [
        sys.executable, '-m', 'hybrid_seg_ros.cli', 'replay', str(drive.bag.path), '--topic', drive.camera.name,
        '--answer-topic', f'{NODE}/mask', '--timeout', str(timeout_s), '--json', str(report), *remap, *limit,
        *arguments,
    ]  # fmt: skip
