"""Soak: the real node, thousands of frames, and whether its memory and latency stay where they are."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.ros.command_options import exit_in_order, parse_parameter
from hybrid_seg_ros.ros.trials.soak_report import SoakOptions, SoakReport

_INTERRUPTED = 130


def soak(options: SoakOptions) -> SoakReport:
    """Soak in a ROS network of its own. Raises NodeError with the log of a node that does not start, or BagError."""
    from hybrid_seg_ros.ros.own_network import own_network

    with own_network():
        from hybrid_seg_ros.ros.trials.soak_run import run_soak

        return run_soak(options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg soak`."""
    default = SoakOptions()
    parser.add_argument('--model', type=Path, help='model YAML; default: the one that comes with the package')
    parser.add_argument('--bag', type=Path, help='rosbag2 to play; default: the one that comes with the package')
    parser.add_argument('--topic', metavar='NAME', help='camera topic of the bag, where it holds several')
    parser.add_argument('--frames', type=int, default=default.frames, help='(%(default)s)')
    parser.add_argument('--rate', type=float, help='speed, 1.0 is as recorded; default: one frame at a time')
    parser.add_argument('--idle', action='store_true', help='leave the network out: the node alone, and faster')
    parser.add_argument(
        '--max-growth', type=float, default=default.max_growth_mib, metavar='MIB',
        help='exit status 1 if resident memory grows by more (%(default)s)',
    )  # fmt: skip
    parser.add_argument('--timeout', type=float, default=default.timeout_s, help='seconds for a mask (%(default)s)')
    parser.add_argument(
        '--param', action='append', default=[], metavar='NAME:=VALUE', help='set a parameter of the node: device:=cuda'
    )
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures to this file')
    parser.add_argument('--picture', type=Path, metavar='PNG', help='draw memory and latency over the frames')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg soak`: 0 if memory stayed flat, 130 after Ctrl-C, 1 if it grew or the node failed."""
    from hybrid_seg_ros.evaluation.pages.figures import require_matplotlib
    from hybrid_seg_ros.ros.node_watch import NodeError

    if args.picture is not None:
        require_matplotlib()
    signal.signal(signal.SIGTERM, exit_in_order)
    options = SoakOptions(
        model=args.model, bag=args.bag, topic=args.topic, frames=args.frames, rate=args.rate, idle=args.idle,
        max_growth_mib=args.max_growth, timeout_s=args.timeout, parameters=dict(map(parse_parameter, args.param)),
    )  # fmt: skip
    try:
        report = soak(options)
    except NodeError as error:
        print(f'hybrid_seg soak: {error}', file=sys.stderr)
        return 1
    if args.json is not None:
        write_json(args.json, report.to_dict())
    if args.picture is not None:
        from hybrid_seg_ros.ros.trials.soak_figure import draw_soak

        draw_soak(report, args.picture)
    print(report)
    if report.ended:
        return _INTERRUPTED if report.ended == 'interrupted' else 1
    return 1 if report.verdict == 'grows' else 0
