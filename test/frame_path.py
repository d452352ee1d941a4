"""Count the files and functions of the package that one frame crosses, from the camera's message to its mask.

A tiny model runs by ONNX Runtime inside the real node. `PYTHONPATH=test/ros python test/frame_path.py` lists what is
crossed, in order.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import rclpy
from node_harness import QUICK, street
from rclpy.parameter import Parameter
from tiny_model import write_tiny_model

from hybrid_seg_ros.ros.lifecycle_node import SegmentationNode

PACKAGE_DIR = Path(__file__).resolve().parents[1] / 'hybrid_seg_ros'


class Call(NamedTuple):
    """A function of the package, by its file below the package and its name there."""

    file: str
    function: str


class Recorder:
    """Notes every call of a function of the package, in all threads that are started meanwhile, while it is `on`."""

    def __init__(self) -> None:
        self.on = False
        self.calls: list[Call] = []

    def __call__(self, frame: types.FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if not self.on or event != 'call' or not code.co_filename.startswith(f'{PACKAGE_DIR}/'):
            return
        if not code.co_name.startswith('<') or code.co_name == '<lambda>':  # the body of a comprehension is none
            name = f'{code.co_name}:{code.co_firstlineno}'
            self.calls.append(Call(str(Path(code.co_filename).relative_to(PACKAGE_DIR)), name))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch this thread and those that begin now."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def record_frame(model: Path) -> list[Call]:
    """Return what the second frame of a camera calls; the first one is left to make everything ready."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    recorder = Recorder()
    values = {**QUICK, 'backend': 'onnxruntime', 'model_path': str(model)}
    parameters = [Parameter(name, value=value) for name, value in values.items()]
    try:
        with recorder.installed():
            node = SegmentationNode(context=context, parameter_overrides=parameters)
            node.trigger_configure()
            node.trigger_activate()
            (camera,) = node.cameras
            for recorder.on in (False, True):
                camera._image_callback(street())
                node.worker.finish(10.0)
            recorder.on = False
            node.destroy_node()
    finally:
        context.try_shutdown()
    return recorder.calls


def returns(calls: list[Call]) -> int:
    """Return how often a file is entered that was left before."""
    files = [call.file for call in calls]
    entered = [file for before, file in zip(['', *files], files) if file != before]
    return len(entered) - len(set(entered))


def main() -> None:
    """Print each file where it is entered, with the functions called there, and the counts."""
    with tempfile.TemporaryDirectory() as folder:
        calls = record_frame(write_tiny_model(Path(folder)))
    file = ''
    for call in calls:
        if call.file != file:
            file = call.file
            print(file)
        print(f'    {call.function}')
    print(f'{len({call.file for call in calls})} files, {len(set(calls))} functions, {returns(calls)} returns')


if __name__ == '__main__':
    main()
