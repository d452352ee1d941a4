"""The command line, `hybrid_seg COMMAND`: finds the command's module, parses, calls it, reports its errors.

A command is a module with `add_arguments(parser)` and `run(args) -> int`, the exit status. It is imported once it is
chosen, so that `hybrid_seg --help` needs neither PyTorch nor ROS 2.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Optional

from hybrid_seg_ros.process_memory import wait_briefly

LOG_FORMAT = '%(levelname)s %(name)s: %(message)s'
EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
EXPECTED_ERRORS = (ValueError, OSError, ModuleNotFoundError)
"""What bad input, a missing file or a missing library raises; anything else is our mistake and keeps its traceback."""


@dataclass(frozen=True)
class Command:
    """Where a command lives, and what it does in one line."""

    module: str
    help: str

    def load(self) -> ModuleType:
        """Import the command's module."""
        return importlib.import_module(self.module)


COMMANDS = {
    'segment': Command('hybrid_seg_ros.inference.segment_images', 'segment image files into masks and overlays'),
    'evaluate': Command('hybrid_seg_ros.evaluation.accuracy.evaluate', 'mIoU, tokens, GFLOPs, time on a dataset'),
    'sweep': Command('hybrid_seg_ros.evaluation.accuracy.sweep', 'accuracy for GFLOPs at each operating point'),
    'choose-points': Command(
        'hybrid_seg_ros.evaluation.accuracy.choose_points', "a latency budget's points, from a sweep"),
    'flops': Command('hybrid_seg_ros.evaluation.flops.command', 'GFLOPs per variant and per component'),
    'benchmark': Command(
        'hybrid_seg_ros.evaluation.benchmark.command', 'time variants and backends, from image to label map'),
    'paper': Command('hybrid_seg_ros.evaluation.paper.command', "the paper's tables and figures, for a model and data"),
    'check-dataset': Command('hybrid_seg_ros.data.check_dataset', 'read a whole dataset and name what is wrong'),
    'train': Command('hybrid_seg_ros.training.train_segmenter', 'train a segmenter with its auxiliary heads'),
    'train-policy': Command('hybrid_seg_ros.training.train_policy', 'train the policy network that merges tokens'),
    'convert': Command('hybrid_seg_ros.export.convert_command', 'convert SegViT, DToP, CTS or pretrained ViT weights'),
    'export': Command('hybrid_seg_ros.export.export_onnx', 'write a model as ONNX graphs'),
    'check-parity': Command('hybrid_seg_ros.export.check_parity', 'hold backends against PyTorch on real images'),
    'build-engine': Command('hybrid_seg_ros.export.build_engine', 'build TensorRT engines of an exported network'),
    'replay': Command('hybrid_seg_ros.ros.play.replay', 'play a rosbag2 to a running node, over DDS'),
    'evaluate-bag': Command('hybrid_seg_ros.ros.play.evaluate_bag', 'accuracy, tokens, latency on a recorded drive'),
    'write-bag': Command('hybrid_seg_ros.ros.bags.bag_writer', 'write a dataset as a rosbag2'),
    'demo': Command('hybrid_seg_ros.ros.play.demo', 'start the node, replay street video to it, show the result'),
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command and return its exit status: 0 success, 1 error, 2 wrong usage, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = chosen_command(argv)
    debug = '--debug' in argv
    wait_briefly()
    try:
        command = COMMANDS[name].load() if name else None
        args = build_parser(name, command).parse_args(argv)
        logging.basicConfig(level=logging.DEBUG if args.debug else logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
        status = command.run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(f'hybrid_seg {name}: interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, `head` say, has what it wanted; nothing may be flushed into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except EXPECTED_ERRORS as error:
        if debug:
            traceback.print_exc()
        print(f'hybrid_seg {name}: {as_typed(describe(error), argv)}', file=sys.stderr)
        return EXIT_ERROR


def chosen_command(argv: Sequence[str]) -> Optional[str]:
    """Return the command that the arguments start with, options aside; None if there is none or it is unknown."""
    first = next((argument for argument in argv if not argument.startswith('-')), None)
    return first if first in COMMANDS else None


def build_parser(name: Optional[str] = None, command: Optional[ModuleType] = None) -> argparse.ArgumentParser:
    """Build the parser of all commands; only the command `name` has its arguments added, by its module."""
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument('--debug', action='store_true', default=argparse.SUPPRESS,
                       help='log more, and show the traceback of an error')
    parser = argparse.ArgumentParser(prog='hybrid_seg', parents=[debug], description=(
        'Semantic segmentation with a vision transformer that merges and prunes its tokens.'))
    parser.set_defaults(debug=False)
    subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for each, entry in COMMANDS.items():
        subparser = subparsers.add_parser(each, parents=[debug], help=entry.help, description=entry.help)
        if each == name:
            command.add_arguments(subparser)
    return parser


def describe(error: BaseException) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, ModuleNotFoundError):
        return f'{error}; is the environment set up (make venv) or ROS 2 sourced?'
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f'{error.strerror}: {error.filename}'
    return ' '.join(str(error).split()) or type(error).__name__


def as_typed(message: str, argv: Sequence[str]) -> str:
    """Name the options that were typed as they were typed: checks further down name them as Python does."""
    for option in {word.partition('=')[0] for word in argv if word.startswith('--')} - {'--'}:
        name = re.escape(option[2:].replace('-', '_'))
        anywhere = rf'|(?<![\w/.-]){name}(?![\w/-])' if '_' in name else ''
        message = re.sub(rf'^{name}(_hw)?(?=:){anywhere}', option, message)
    return message


if __name__ == '__main__':
    sys.exit(main())
