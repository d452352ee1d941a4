"""A camera: publishes images of one size at a steady rate from a process of its own, and says when it did."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from rclpy.duration import Duration
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.files import write_text
from hybrid_seg_ros.ros.cdr_header import NANOSECONDS
from hybrid_seg_ros.ros.messages import array_to_image
from hybrid_seg_ros.ros.session import RosSession, reliable_qos

_QUEUE = 5
_SETTLE_S = 0.5
"""A publisher counts a subscriber before that one listens; what a best-effort one gets in between is lost."""
_LAST_FRAMES = Duration(seconds=2)


def play(topic: str, size_hw: tuple[int, int], rate_hz: float, frames: int, wait_s: float) -> list[int]:
    """Publish `frames` rgb8 images and return their stamps, in nanoseconds, taken just before each was published.

    Raises TimeoutError if nobody subscribes within `wait_s` seconds. A frame that is late does not delay the next.
    """
    with RosSession('camera') as session:
        publisher = session.node.create_publisher(Image, topic, reliable_qos(_QUEUE))
        if not session.spin_until(lambda: publisher.get_subscription_count() > 0, wait_s):
            raise TimeoutError(f'no subscriber on {topic} within {wait_s:g} s')
        message = array_to_image(street_scene(size_hw), Header(frame_id='camera'))
        session.spin_for(_SETTLE_S)
        stamps_ns = []
        start = time.monotonic()
        for index in range(frames):
            time.sleep(max(0.0, start + index / rate_hz - time.monotonic()))
            stamps_ns.append(time.time_ns())
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamps_ns[-1], NANOSECONDS)
            publisher.publish(message)
        publisher.wait_for_all_acked(_LAST_FRAMES)
        return stamps_ns


def command(topic: str, size_hw: tuple[int, int], rate_hz: float, frames: int, output: Path) -> list[str]:
    """Return the command that runs `main` in a process of its own."""
    return [
        sys.executable, '-m', __name__, topic, '--size', *map(str, size_hw), '--rate', str(rate_hz),
        '--frames', str(frames), '--output', str(output),
    ]  # fmt: skip


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Play, and write the stamps to a file as a JSON list."""
    parser = argparse.ArgumentParser(description='publish images at a steady rate')
    parser.add_argument('topic')
    parser.add_argument('--size', nargs=2, type=int, required=True)
    parser.add_argument('--rate', type=float, required=True)
    parser.add_argument('--frames', type=int, required=True)
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--wait', type=float, default=30.0)
    args = parser.parse_args(argv)
    stamps_ns = play(args.topic, tuple(args.size), args.rate, args.frames, args.wait)
    write_text(args.output, json.dumps(stamps_ns))
    return 0


if __name__ == '__main__':
    sys.exit(main())
