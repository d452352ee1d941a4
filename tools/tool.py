"""Runs a tool as `hybrid_seg` runs a command: parse, run, and say in one line what went wrong."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Optional

from hybrid_seg_ros.cli import EXIT_ERROR, EXIT_INTERRUPTED, EXPECTED_ERRORS, describe
from hybrid_seg_ros.process_memory import wait_briefly
from hybrid_seg_ros.ros.play.node_process import NodeError, exit_in_order

IDLE_NODE = (str(Path(__file__).with_name('idle_node.py')),)
"""What Python runs to be a node without its network."""


def run_tool(tool: ModuleType, argv: Optional[Sequence[str]] = None) -> int:
    """Run a module with `add_arguments(parser)` and `run(args)`; return its exit status, as of `hybrid_seg`."""
    wait_briefly()
    signal.signal(signal.SIGTERM, exit_in_order)
    parser = argparse.ArgumentParser(prog=Path(tool.__file__).name, description=tool.__doc__.splitlines()[0])
    tool.add_arguments(parser)
    try:
        return tool.run(parser.parse_args(argv))
    except KeyboardInterrupt:
        print(f'{parser.prog}: interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED
    except NodeError as error:
        print(f'{parser.prog}: {error}', file=sys.stderr)
    except EXPECTED_ERRORS as error:
        print(f'{parser.prog}: {describe(error)}', file=sys.stderr)
    return EXIT_ERROR


def add_node_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what tools ask of the node."""
    parser.add_argument('--model', type=Path, help='model YAML; default: the one that comes with the package')
    parser.add_argument(
        '--param', action='append', default=[], metavar='NAME:=VALUE', help='set a parameter of the node: device:=cuda'
    )


def positive(text: str) -> float:
    """Read a number above 0, for argparse."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f'expected more than 0, got {text}')
    return number


def count(text: str) -> int:
    """Read a whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'expected at least 1, got {text}')
    return number
