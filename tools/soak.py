"""Soak: the real node, thousands of frames, and whether its memory and latency stay where they are."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from played_camera import PlayedCamera
from process_figures import process_figures
from soak_report import NodeSample, SoakReport, draw_soak
from tool import IDLE_NODE, add_node_arguments, count, positive, run_tool

from hybrid_seg_ros.cli import EXIT_INTERRUPTED
from hybrid_seg_ros.evaluation.benchmark.machine import describe_cpu
from hybrid_seg_ros.evaluation.pages.figures import require_matplotlib
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.ros.bags.drive import opened_drive
from hybrid_seg_ros.ros.play.node_process import SEGMENTATION_NODE, NodeError, parse_parameter
from hybrid_seg_ros.ros.play.running_node import IMAGE, RunningNode, drive_parameters, running_node

_START_S = 120.0
_SAMPLES, _LINES = 200, 20
_MISSES_IN_A_ROW = 3
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
        return EXIT_INTERRUPTED if report.ended == _INTERRUPTED else 1
    return 1 if report.verdict == 'grows' else 0


def soak(args: argparse.Namespace) -> SoakReport:
    """Soak the node, and report; also if it dies, or by Ctrl-C. Raises NodeError if it does not start, or BagError."""
    given = dict(map(parse_parameter, args.param))
    with (
        opened_drive(args.bag, args.topic, with_labels=False) as drive,
        tempfile.TemporaryDirectory() as folder,
    ):
        parameters, log = drive_parameters(drive, args.model, given), Path(folder) / 'node.log'
        program = IDLE_NODE if args.idle else SEGMENTATION_NODE
        with running_node(parameters, log, _START_S, program=program) as node:
            camera = PlayedCamera(node, [message.cdr for message in drive.frames()], drive.topic(IMAGE))
            samples: list[NodeSample] = []
            try:
                ended = _play(node, camera, samples, args, drive.rate_hz)
            except KeyboardInterrupt:
                ended = _INTERRUPTED
            except NodeError as error:
                ended = str(error)
            if samples:  # answers that came after it are no longer lost
                samples[-1] = dataclasses.replace(samples[-1], lost=_lost(camera))
            return SoakReport(
                describe_cpu(), node.model.removeprefix('active: '), str(args.bag or drive.bag.path.name), args.frames,
                args.max_growth, len(camera.frames), tuple(samples), ended,
            )  # fmt: skip


def _play(
    node: RunningNode, camera: PlayedCamera, samples: list[NodeSample], args: argparse.Namespace, rate_hz: float
) -> str:
    """Play all frames; return why it ended early, '' if it did not. Raises NodeError if the node ends."""
    start_s, misses = time.monotonic(), 0
    for sent in range(1, args.frames + 1):
        frame = camera.publish()
        if args.rate is None:
            camera.await_last(args.timeout)
            misses = 0 if frame.is_answered else misses + 1
        else:
            node.session.spin_for(start_s + sent / (args.rate * rate_hz) - time.monotonic())
        node.check_alive()
        if sent % max(1, args.frames // _SAMPLES) == 0:
            samples.append(_look(node, camera, samples[-1].frames if samples else 0, time.monotonic() - start_s))
        if sent % max(1, args.frames // _LINES) == 0:
            print(samples[-1], flush=True)
        if misses == _MISSES_IN_A_ROW:
            return f'{misses} frames in a row got no answer within {args.timeout:g} s'
    camera.await_last(args.timeout)
    return ''


def _look(node: RunningNode, camera: PlayedCamera, before: int, seconds: float) -> NodeSample:
    """Look at the node's process, and at the answers to the frames after the first `before`. Raises NodeError."""
    recent = [frame.latency_ms for frame in camera.frames[before:] if frame.is_answered]
    p50_ms, p95_ms = np.percentile(recent, (50, 95)) if recent else (np.nan, np.nan)
    try:
        figures = process_figures(node.pid)
    except OSError as error:
        raise node.error(str(error)) from error
    return NodeSample(
        **vars(figures), frames=len(camera.frames), seconds=seconds, lost=_lost(camera), p50_ms=float(p50_ms),
        p95_ms=float(p95_ms),
    )  # fmt: skip


def _lost(camera: PlayedCamera) -> int:
    return sum(not frame.is_answered for frame in camera.frames)


if __name__ == '__main__':
    sys.exit(run_tool(sys.modules[__name__]))
