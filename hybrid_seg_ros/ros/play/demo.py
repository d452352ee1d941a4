"""`hybrid_seg demo`: the real node in one process, a recorded drive played to it from another, and what came of it."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from pathlib import Path

from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.ros.play.node_process import NodeError, exit_in_order

DEFAULT_OUTPUT = Path('out/demo')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg demo`."""
    add_drive_arguments(parser, DEFAULT_OUTPUT)
    parser.add_argument('--variant', help="which tokens merge and leave early (default: the model's own)")
    parser.add_argument('--rate', type=float, default=1.0, help='speed of the real-time part (%(default)s)')
    parser.add_argument('--timeout', type=float, default=10.0, help='seconds for a mask (%(default)s)')


def add_drive_arguments(parser: argparse.ArgumentParser, output: Path) -> None:
    """Declare what every demo asks for: the drive, the model, the folder to write to, parameters of the node."""
    parser.add_argument('--bag', type=Path, help='rosbag2 to play; default: the one that comes with the package')
    parser.add_argument('--topic', metavar='NAME', help='camera topic of the bag, where it holds several')
    parser.add_argument('--label-topic', metavar='NAME', help='ground-truth topic of the bag, where it holds several')
    parser.add_argument('--model', type=Path, help='model YAML; default: the one that comes with the package')
    parser.add_argument('--output', type=Path, default=output, help='folder for what it writes (%(default)s)')
    parser.add_argument('--limit', type=int, metavar='N', help='use the first N frames only')
    parser.add_argument(
        '--param', action='append', default=[], metavar='NAME:=VALUE', help='set a parameter of the node: device:=cuda'
    )


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg demo`; 1 if the node or the replay failed, or no mask came."""
    from hybrid_seg_ros.ros.play.demo_run import run_demo

    signal.signal(signal.SIGTERM, exit_in_order)
    try:
        report = run_demo(args)
    except NodeError as error:
        print(f'hybrid_seg demo: {error}', file=sys.stderr)
        return 1
    write_json(args.output / 'report.json', dataclasses.asdict(report))
    print(report)
    return 0
