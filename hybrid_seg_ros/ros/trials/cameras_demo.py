"""The demo of several cameras: two of them share one node, one falls silent for a while, the other goes on."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from pathlib import Path

from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.backends import AUTO
from hybrid_seg_ros.ros.command_options import exit_in_order, parse_parameter
from hybrid_seg_ros.ros.trials.cameras_demo_report import CamerasDemoOptions, CamerasReport
from hybrid_seg_ros.ros.trials.demo import add_drive_arguments

DEFAULT_OUTPUT = Path('out/demo_cameras')


def demo_cameras(options: CamerasDemoOptions) -> CamerasReport:
    """Run the demo; write its picture. Raises NodeError with its log or BagError."""
    from hybrid_seg_ros.ros.own_network import own_network

    with own_network():
        from hybrid_seg_ros.ros.trials.cameras_demo_run import run_cameras_demo

        return run_cameras_demo(options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg demo-cameras`."""
    default = CamerasDemoOptions(DEFAULT_OUTPUT)
    add_drive_arguments(parser, DEFAULT_OUTPUT)
    parser.add_argument('--rate', type=float, default=default.rate_hz, metavar='HZ', help='of each (%(default)s)')
    parser.add_argument(
        '--phase', type=float, default=default.phase_s, metavar='S',
        help='seconds with both cameras, with the front one only, with both again (%(default)s each)',
    )  # fmt: skip
    parser.add_argument('--backend', default=AUTO, help='backend of the node (%(default)s: the fastest here)')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg demo-cameras`; 1 if the node failed, or no mask came."""
    from hybrid_seg_ros.ros.node_watch import NodeError

    signal.signal(signal.SIGTERM, exit_in_order)
    options = CamerasDemoOptions(
        output=args.output, bag=args.bag, topic=args.topic, label_topic=args.label_topic, model=args.model,
        limit=args.limit, rate_hz=args.rate, phase_s=args.phase,
        parameters={'backend': args.backend, **dict(map(parse_parameter, args.param))},
    )  # fmt: skip
    try:
        report = demo_cameras(options)
    except NodeError as error:
        print(f'hybrid_seg demo-cameras: {error}', file=sys.stderr)
        return 1
    write_json(options.output / 'report.json', dataclasses.asdict(report))
    print(report)
    return 0
