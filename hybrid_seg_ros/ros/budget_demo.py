"""The budget demo: a node that keeps its latency budget while the machine is loaded, beside one that cannot."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from hybrid_seg_ros.ros.budget_demo_report import BudgetDemoOptions, BudgetReport
from hybrid_seg_ros.ros.demo_options import DemoError
from hybrid_seg_ros.ros.demo_setup import (
    add_drive_arguments,
    default_backend,
    end_in_order_on_sigterm,
    own_ros_network,
    parse_parameters,
)

DEFAULT_OUTPUT = Path('out/demo_budget')


def demo_budget(options: BudgetDemoOptions) -> BudgetReport:
    """Run the demo; write its report and picture. Raises DemoError, BagError or ValueError."""
    with own_ros_network():
        from hybrid_seg_ros.ros.budget_demo_run import run_budget_demo

        return run_budget_demo(options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg demo-budget`."""
    default = BudgetDemoOptions(DEFAULT_OUTPUT)
    add_drive_arguments(parser, DEFAULT_OUTPUT)
    parser.add_argument('--target', type=float, default=default.target_ms, metavar='MS', help='budget (%(default)s)')
    parser.add_argument(
        '--phase', type=float, default=default.phase_s, metavar='S',
        help='seconds without load, with it, without it (%(default)s each)',
    )  # fmt: skip
    parser.add_argument(
        '--busy', type=int, default=default.busy, metavar='N', help='processes that load the machine (%(default)s)'
    )
    parser.add_argument('--rate', type=float, default=default.rate_hz, metavar='HZ', help='of camera (%(default)s)')
    parser.add_argument('--backend', default=default_backend(), help='backend of the node (%(default)s)')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg demo-budget`; 1 if the node failed, or no mask came."""
    end_in_order_on_sigterm()
    options = BudgetDemoOptions(
        output=args.output, bag=args.bag, topic=args.topic, label_topic=args.label_topic, model=args.model,
        limit=args.limit, target_ms=args.target, phase_s=args.phase, busy=args.busy, rate_hz=args.rate,
        parameters={'backend': args.backend, **parse_parameters(args.param)},
    )  # fmt: skip
    try:
        report = demo_budget(options)
    except DemoError as error:
        print(f'hybrid_seg demo-budget: {error}', file=sys.stderr)
        return 1
    (options.output / 'report.json').write_text(json.dumps(dataclasses.asdict(report)) + '\n', 'utf-8')
    print(report)
    return 0
