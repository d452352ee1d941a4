"""The budget demo: a node that keeps its latency budget while the machine is loaded, beside one that cannot."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from pathlib import Path

from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.backends import AUTO
from hybrid_seg_ros.ros.command_options import exit_in_order, parse_parameter
from hybrid_seg_ros.ros.trials.budget_demo_report import BudgetDemoOptions, BudgetReport
from hybrid_seg_ros.ros.trials.demo import add_drive_arguments

DEFAULT_OUTPUT = Path('out/demo_budget')


def demo_budget(options: BudgetDemoOptions) -> BudgetReport:
    """Run the demo; write its report and picture. Raises NodeError with its log, BagError or ValueError."""
    from hybrid_seg_ros.ros.own_network import own_network

    with own_network():
        from hybrid_seg_ros.ros.trials.budget_demo_run import run_budget_demo

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
    parser.add_argument('--backend', default=AUTO, help='of the node (%(default)s: the fastest here in float32)')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg demo-budget`; 1 if the node failed, or no mask came."""
    from hybrid_seg_ros.ros.node_watch import NodeError

    signal.signal(signal.SIGTERM, exit_in_order)
    options = BudgetDemoOptions(
        output=args.output, bag=args.bag, topic=args.topic, label_topic=args.label_topic, model=args.model,
        limit=args.limit, target_ms=args.target, phase_s=args.phase, busy=args.busy, rate_hz=args.rate,
        # float32: in bfloat16 a load is no match for the default budget
        parameters={'backend': args.backend, 'precision': 'float32', **dict(map(parse_parameter, args.param))},
    )  # fmt: skip
    try:
        report = demo_budget(options)
    except NodeError as error:
        print(f'hybrid_seg demo-budget: {error}', file=sys.stderr)
        return 1
    write_json(options.output / 'report.json', dataclasses.asdict(report))
    print(report)
    return 0
