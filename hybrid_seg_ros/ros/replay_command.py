"""The command that plays a camera of a bag to a node, from a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_seg_ros.ros.bags.drive import Drive


def replay_command(
    drive: Drive, image_topic: str, mask_topic: str, report: Path, timeout_s: float, *arguments: str
) -> list[str]:
    """Return the command; it writes its report as JSON, and awaits masks for so long.

    `image_topic` is the node's, which gets /compressed where the images are. `arguments` are further ones.
    """
    topic = drive.topic(image_topic)
    remap = ['--remap', f'{drive.camera.name}:={topic}'] if topic != drive.camera.name else []
    limit = [] if drive.limit is None else ['--limit', str(drive.limit)]
    return [
        sys.executable, '-m', 'hybrid_seg_ros.cli', 'replay', str(drive.bag.path), '--topic', drive.camera.name,
        '--answer-topic', mask_topic, '--timeout', str(timeout_s), '--json', str(report), *remap, *limit, *arguments,
    ]  # fmt: skip
