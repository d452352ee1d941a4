"""The demo: the real node in one process, a recorded drive played to it from another, and what came of it."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from pathlib import Path

from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.ros.command_options import exit_in_order, parse_parameter
from hybrid_seg_ros.ros.trials.demo_options import DemoError, DemoOptions, DemoReport

DEFAULT_OUTPUT = Path('out/demo')


def demo(options: DemoOptions) -> DemoReport:
    """Run the demo and write its pictures. Raises NodeError with the log of what failed, DemoError or BagError."""
    from hybrid_seg_ros.ros.own_network import own_network

    with own_network():
        from hybrid_seg_ros.ros.trials.demo_run import run_demo

        return run_demo(options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg demo`."""
    default = DemoOptions(DEFAULT_OUTPUT)
    add_drive_arguments(parser, DEFAULT_OUTPUT)
    parser.add_argument('--variant', help="which tokens merge and leave early (default: the model's own)")
    parser.add_argument('--rate', type=float, default=default.rate, help='speed of the real-time part (%(default)s)')
    parser.add_argument('--timeout', type=float, default=default.timeout_s, help='seconds for a mask (%(default)s)')


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
    signal.signal(signal.SIGTERM, exit_in_order)
    options = DemoOptions(
        output=args.output, bag=args.bag, topic=args.topic, label_topic=args.label_topic, model=args.model,
        variant=args.variant, rate=args.rate, limit=args.limit, timeout_s=args.timeout,
        parameters=dict(map(parse_parameter, args.param)),
    )  # fmt: skip
    from hybrid_seg_ros.ros.node_watch import NodeError

    try:
        report = demo(options)
    except (DemoError, NodeError) as error:
        print(f'hybrid_seg demo: {error}', file=sys.stderr)
        return 1
    write_json(options.output / 'report.json', dataclasses.asdict(report))
    print(report)
    return 0
