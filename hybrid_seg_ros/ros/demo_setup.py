"""What the demos share at the command line: options, a ROS network of their own, an orderly end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def own_ros_network() -> Iterator[None]:
    """Keep a demo and its children to themselves, with room for images in shared memory."""
    from hybrid_seg_ros.ros.model_path import resolve_model_path

    # Fast DDS renamed its variable after Humble, and warns of the old one
    vendor = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'humble' else 'FASTDDS'
    settings = {
        'ROS_DOMAIN_ID': str(1 + os.getpid() % 100),  # above 101, its ports could be taken on Linux
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        f'{vendor}_DEFAULT_PROFILES_FILE': str(resolve_model_path('package://hybrid_seg_ros/config/fastdds_shm.xml')),
        'PYTHONUNBUFFERED': '1',
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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


def parse_parameters(texts: list[str]) -> dict[str, str]:
    """Read entries like `device:=cuda`. Raises ValueError."""
    parameters = {}
    for text in texts:
        name, separator, value = text.partition(':=')
        if not (name and separator and value):
            raise ValueError(f'param: expected NAME:=VALUE, got {text!r}')
        parameters[name] = value
    return parameters


def end_in_order_on_sigterm() -> None:
    """Let SIGTERM raise SystemExit, so that the children are ended on the way."""
    signal.signal(signal.SIGTERM, _exit_in_order)


def default_backend() -> str:
    """Return the faster of the backends that need nothing prepared: onnxruntime where it is installed, else pytorch."""
    from importlib.util import find_spec

    return 'onnxruntime' if find_spec('onnxruntime') and find_spec('onnx') else 'pytorch'


def _exit_in_order(number: int, _frame: Any) -> None:
    sys.exit(128 + number)
