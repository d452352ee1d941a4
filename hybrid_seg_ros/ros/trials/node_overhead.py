"""What the node costs without its network: the real node, its network left out, and a camera, over DDS."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from pathlib import Path

from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.ros.command_options import exit_in_order, parse_parameter
from hybrid_seg_ros.ros.trials.overhead_report import TARGET_P50_MS, OverheadOptions, OverheadReport


def node_overhead(options: OverheadOptions) -> OverheadReport:
    """Measure in a ROS network of its own. Raises NodeError with the log of a process that failed."""
    from hybrid_seg_ros.ros.own_network import own_network

    with own_network(options.shared_memory):
        from hybrid_seg_ros.ros.trials.overhead_run import measure_overhead

        return measure_overhead(options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg node-overhead`."""
    default = OverheadOptions()
    size = ' '.join(map(str, default.size_hw))
    parser.add_argument('--model', type=Path, help='model YAML; default: the one that comes with the package')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), default=default.size_hw, help=f'of the image ({size})'
    )
    parser.add_argument('--rate', type=float, default=default.rate_hz, help='images per second (%(default)s)')
    parser.add_argument('--duration', type=float, default=default.duration_s, help='seconds (%(default)s)')
    parser.add_argument(
        '--mask-size', choices=('network', 'image'), default=default.mask_size, help='(%(default)s)'
    )
    parser.add_argument('--no-shm', action='store_true', help='without config/fastdds_shm.xml, to see what it is for')
    parser.add_argument(
        '--param', action='append', default=[], metavar='NAME:=VALUE', help='set a parameter of the node'
    )
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures to this file')
    parser.add_argument(
        '--check', action='store_true',
        help=f'exit status 1 if a frame is lost or p50 in the node is above {TARGET_P50_MS:g} ms',
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg node-overhead`; 1 if the node or the camera failed, or with --check the target is missed."""
    from hybrid_seg_ros.ros.node_watch import NodeError

    signal.signal(signal.SIGTERM, exit_in_order)
    options = OverheadOptions(
        model=args.model, size_hw=tuple(args.size), rate_hz=args.rate, duration_s=args.duration,
        mask_size=args.mask_size, shared_memory=not args.no_shm, parameters=dict(map(parse_parameter, args.param)),
    )  # fmt: skip
    try:
        report = node_overhead(options)
    except NodeError as error:
        print(f'hybrid_seg node-overhead: {error}', file=sys.stderr)
        return 1
    if args.json is not None:
        write_json(args.json, {**dataclasses.asdict(report), 'lost': report.lost})
    print(report)
    return 1 if args.check and report.problem else 0
