"""The demo: the real node in one process, a recorded drive played to it from another, and what came of it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from hybrid_seg_ros.ros.demo_options import DemoError, DemoOptions, DemoReport
from hybrid_seg_ros.ros.demo_setup import (
    add_drive_arguments,
    end_in_order_on_sigterm,
    own_ros_network,
    parse_parameters,
)

DEFAULT_OUTPUT = Path('out/demo')


def demo(options: DemoOptions) -> DemoReport:
    """Run the demo and write its pictures. Raises DemoError with the log of whichever process failed, or BagError."""
    with own_ros_network():
        from hybrid_seg_ros.ros.demo_run import run_demo

        return run_demo(options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg demo`."""
    default = DemoOptions(DEFAULT_OUTPUT)
    add_drive_arguments(parser, DEFAULT_OUTPUT)
    parser.add_argument('--variant', default=default.variant, help='which tokens merge and leave early (%(default)s)')
    parser.add_argument('--rate', type=float, default=default.rate, help='speed of the real-time part (%(default)s)')
    parser.add_argument('--timeout', type=float, default=default.timeout_s, help='seconds for a mask (%(default)s)')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg demo`; 1 if the node or the replay failed, or no mask came."""
    end_in_order_on_sigterm()
    options = DemoOptions(
        output=args.output, bag=args.bag, topic=args.topic, label_topic=args.label_topic, model=args.model,
        variant=args.variant, rate=args.rate, limit=args.limit, timeout_s=args.timeout,
        parameters=parse_parameters(args.param),
    )  # fmt: skip
    try:
        report = demo(options)
    except DemoError as error:
        print(f'hybrid_seg demo: {error}', file=sys.stderr)
        return 1
    (options.output / 'report.json').write_text(json.dumps(dataclasses.asdict(report), indent=2) + '\n', 'utf-8')
    print(report)
    return 0
