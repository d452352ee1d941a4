"""Soak: the real node, thousands of frames, and whether its memory and latency stay where they are."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from played_camera import PlayedCamera
from process_figures import process_figures
from soak_report import Sample, SoakReport, draw_soak
from tool import IDLE_NODE, add_node_arguments, count, positive, run_tool
from tqdm import tqdm

from hybrid_seg_ros.evaluation.benchmark.machine import describe_cpu
from hybrid_seg_ros.evaluation.pages.figures import require_matplotlib
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.model_path import resolve_model_path
from hybrid_seg_ros.ros.play.node_process import SEGMENTATION_NODE, NodeError, parse_parameter
from hybrid_seg_ros.ros.play.running_node import IMAGE, SHIPPED_DRIVE, RunningNode, drive_parameters, running_node

_START_S = 120.0
_SAMPLES, _LINES = 200, 20
_MISSES_IN_A_ROW = 3
_GONE_S, _POLL_S = 1.0, 0.01
"""A process that dies has no memory any more a moment before it has a status."""
_INTERRUPTED = 'interrupted'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_node_arguments(parser)
    parser.add_argument('--bag', type=Path, help='rosbag2 to play; default: the one that comes with the package')
    parser.add_argument('--topic', metavar='NAME', help='camera topic of the bag, where it holds several')
    parser.add_argument('--frames', type=count, default=20_000, help='(%(default)s)')
    parser.add_argument('--rate', type=positive, help='times the mean rate of the bag; default: one frame at a time')
    parser.add_argument('--idle', action='store_true', help='leave the network out: the node alone, and faster')
    parser.add_argument('--max-growth', type=positive, default=16.0, metavar='MIB',
                        help='exit status 1 if resident memory grows by more (%(default)s)')  # fmt: skip
    parser.add_argument('--timeout', type=positive, default=10.0, help='seconds for a mask (%(default)s)')
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures to this file')
    parser.add_argument('--picture', type=Path, metavar='PNG', help='draw memory and latency over the frames')


def run(args: argparse.Namespace) -> int:
    """Return 0 if memory stayed flat, 130 after Ctrl-C, 1 if it grew or the node failed."""
    if args.picture is not None:
        require_matplotlib()
    report = soak(args)
    if args.json is not None:
        write_json(args.json, report.to_dict())
    if args.picture is not None:
        draw_soak(report, args.picture)
    print(report)
    if report.ended:
        return 130 if report.ended == _INTERRUPTED else 1
    return 1 if report.verdict == 'grows' else 0


def soak(args: argparse.Namespace) -> SoakReport:
    """Soak the node, and report; also if it dies, or by Ctrl-C. Raises NodeError if it does not start, or BagError."""
    given = dict(map(parse_parameter, args.param))
    with BagReader(args.bag or resolve_model_path(SHIPPED_DRIVE)) as bag, tempfile.TemporaryDirectory() as folder:
        drive = Drive(bag, args.topic, with_labels=False)
        parameters, log = drive_parameters(drive, args.model, given), Path(folder) / 'node.log'
        program = IDLE_NODE if args.idle else SEGMENTATION_NODE
        with running_node(parameters, log, _START_S, program=program) as node:
            camera = PlayedCamera(node, [message.cdr for message in drive.frames()], drive.topic(IMAGE))
            samples = _Samples(node, camera, args.frames)
            try:
                ended = _play(node, camera, samples, args, drive.rate_hz)
            except KeyboardInterrupt:
                ended = _INTERRUPTED
            except NodeError as error:
                ended = str(error)
            return SoakReport(
                describe_cpu(), node.model.removeprefix('active: '), str(args.bag or bag.path.name), args.frames,
                args.max_growth, len(camera.frames), samples.taken(), ended,
            )  # fmt: skip


def _play(
    node: RunningNode, camera: PlayedCamera, samples: _Samples, args: argparse.Namespace, rate_hz: float
) -> str:
    """Play all frames; return why it ended early, '' if it did not. Raises NodeError if the node ends."""
    start_s, misses = time.monotonic(), 0
    for index in range(args.frames):
        frame = camera.publish()
        if args.rate is None:
            camera.await_last(args.timeout)
            misses = 0 if frame.is_answered else misses + 1
        else:
            node.session.spin_for(start_s + (index + 1) / (args.rate * rate_hz) - time.monotonic())
        samples.look()
        node.check_alive()
        if misses == _MISSES_IN_A_ROW:
            return f'{misses} frames in a row got no answer within {args.timeout:g} s'
    camera.await_last(args.timeout)
    return ''


class _Samples:
    """Looks at the node's process and at the answers, every so many frames."""

    def __init__(self, node: RunningNode, camera: PlayedCamera, frames: int) -> None:
        self._node, self._camera = node, camera
        self._every, self._line_every = max(1, frames // _SAMPLES), max(1, frames // _LINES)
        self._start_s = time.monotonic()
        self._samples: list[Sample] = []

    def look(self) -> None:
        """Take a sample, if it is time for one."""
        frames = self._camera.frames
        if len(frames) % self._every:
            return
        answered = [frame.latency_ms for frame in frames if frame.is_answered]
        recent = [frame.latency_ms for frame in frames[-self._every :] if frame.is_answered]
        p50_ms, p95_ms = np.percentile(recent, (50, 95)) if recent else (np.nan, np.nan)
        seconds, lost = time.monotonic() - self._start_s, len(frames) - len(answered)
        try:
            figures = process_figures(self._node.pid)
        except OSError:
            deadline = time.monotonic() + _GONE_S
            while time.monotonic() < deadline:
                self._node.check_alive()
                time.sleep(_POLL_S)
            raise
        self._samples.append(Sample(len(frames), seconds, lost, float(p50_ms), float(p95_ms), **vars(figures)))
        if len(frames) % self._line_every == 0:
            tqdm.write(str(self._samples[-1]))

    def taken(self) -> tuple[Sample, ...]:
        """Return all samples; in the last one, answers that came after it are no longer lost."""
        lost = sum(not frame.is_answered for frame in self._camera.frames)
        return tuple(
            Sample(**{**vars(each), 'lost': lost}) if each is self._samples[-1] else each for each in self._samples
        )


if __name__ == '__main__':
    sys.exit(run_tool(sys.modules[__name__]))
