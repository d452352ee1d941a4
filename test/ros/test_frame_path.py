"""One frame's way through the package, from the camera's message to its mask: which files and functions it crosses.

A tiny model runs by ONNX Runtime inside the real node. `pytest -s test/ros/test_frame_path.py` prints the way.
"""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from typing import NamedTuple

import rclpy
from node_harness import QUICK, TIMEOUT_S, street
from rclpy.parameter import Parameter
from tiny_model import write_tiny_model

from hybrid_seg_ros.ros.lifecycle_node import SegmentationNode

PACKAGE_DIR = Path(__file__).resolve().parents[2] / 'hybrid_seg_ros'
MOST_FILES, MOST_FUNCTIONS = 17, 61


class Call(NamedTuple):
    """A function of the package: its file below the package, its name, and the line where it begins."""

    file: str
    function: str
    line: int


class Recorder:
    """A profile function: notes every call of a function of the package while it is `on`."""

    def __init__(self) -> None:
        self.on = False
        self.calls: list[Call] = []

    def __call__(self, frame: types.FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if not self.on or event != 'call' or not code.co_filename.startswith(f'{PACKAGE_DIR}/'):
            return
        if not code.co_name.startswith('<') or code.co_name == '<lambda>':  # the body of a comprehension is none
            file = str(Path(code.co_filename).relative_to(PACKAGE_DIR))
            self.calls.append(Call(file, code.co_name, code.co_firstlineno))


def record_frame(model: Path) -> list[Call]:
    """Return what the second frame of a camera calls; the first one makes everything ready."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    recorder = Recorder()
    values = {**QUICK, 'backend': 'onnxruntime', 'model_path': str(model)}
    parameters = [Parameter(name, value=value) for name, value in values.items()]
    try:
        node = SegmentationNode(context=context, parameter_overrides=parameters)
        threading.setprofile(recorder)  # for the worker's thread
        node.trigger_configure()
        threading.setprofile(None)
        node.trigger_activate()
        (camera,) = node.cameras
        for recorder.on in (False, True):
            sys.setprofile(recorder)
            camera._image_callback(street())
            sys.setprofile(None)
            node.worker._thread.submit(lambda: None).result(TIMEOUT_S)
        recorder.on = False
        node.destroy_node()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        context.try_shutdown()
    return recorder.calls


def test_a_frame_s_way_is_short(tmp_path):
    calls = record_frame(write_tiny_model(tmp_path))
    before = ''
    for call in calls:
        if call.file != before:
            print(call.file)
        print(f'    {call.function}')
        before = call.file
    files, functions = {call.file for call in calls}, set(calls)
    print(len(files), 'files,', len(functions), 'functions')
    assert 'inference/pipeline.py' in files and 'ros/publishers.py' in files
    assert len(files) <= MOST_FILES and len(functions) <= MOST_FUNCTIONS
