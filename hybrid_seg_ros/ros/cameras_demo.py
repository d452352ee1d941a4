"""The demo of several cameras: two of them share one node, one falls silent for a while, the other goes on."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from hybrid_seg_ros.ros.cameras_demo_report import CamerasDemoOptions, CamerasReport
from hybrid_seg_ros.ros.demo_options import DemoError
from hybrid_seg_ros.ros.demo_setup import (
    add_drive_arguments,
    default_backend,
    end_in_order_on_sigterm,
    own_ros_network,
    parse_parameters,
)

DEFAULT_OUTPUT = Path('out/demo_cameras')


def demo_cameras(options: CamerasDemoOptions) -> CamerasReport:
    """Run the demo; write its picture. Raises DemoError or BagError."""
    with own_ros_network():
        from hybrid_seg_ros.ros.cameras_demo_run import run_cameras_demo

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
    parser.add_argument('--backend', default=default_backend(), help='backend of the node (%(default)s)')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg demo-cameras`; 1 if the node failed, or no mask came."""
    end_in_order_on_sigterm()
    options = CamerasDemoOptions(
        output=args.output, bag=args.bag, topic=args.topic, label_topic=args.label_topic, model=args.model,
        limit=args.limit, rate_hz=args.rate, phase_s=args.phase,
        parameters={'backend': args.backend, **parse_parameters(args.param)},
    )  # fmt: skip
    try:
        report = demo_cameras(options)
    except DemoError as error:
        print(f'hybrid_seg demo-cameras: {error}', file=sys.stderr)
        return 1
    (options.output / 'report.json').write_text(json.dumps(dataclasses.asdict(report), indent=2) + '\n', 'utf-8')
    print(report)
    return 0
