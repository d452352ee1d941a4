"""DemoNode: the segmentation node in a process of its own, started and ended by a demo."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Optional

from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.demo_options import DemoError
from hybrid_seg_ros.ros.node_watch import NodeWatch
from hybrid_seg_ros.ros.session import RosSession

NODE = '/segmentation_node'
POLL_S = 0.05


class DemoNode:
    """Runs the node with parameters and topics remapped; a context manager that ends it."""

    def __init__(self, log: Path, parameters: Mapping[str, object], remap: Mapping[str, str]) -> None:
        command = [sys.executable, '-m', 'hybrid_seg_ros.ros.segmentation_node', '--ros-args']
        command += [word for before, after in remap.items() for word in ('-r', f'{before}:={after}')]
        command += [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
        self._process = ChildProcess(command, log, os.environ)

    def __enter__(self) -> DemoNode:
        self._process.__enter__()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._process.stop()

    def wait_until_active(self, watch: NodeWatch, session: RosSession, timeout_s: float) -> None:
        """Wait until the model is loaded and images are let in. Raises DemoError."""
        deadline = time.monotonic() + timeout_s
        while not watch.is_active():
            self.check_alive()
            if watch.model_failure:
                raise self.failure(f'segmentation_node is {watch.model_failure}')
            if time.monotonic() > deadline:
                raise self.failure(f'segmentation_node is not active after {timeout_s:g} s')
            session.spin_for(POLL_S)

    def check_alive(self) -> None:
        """Raise DemoError if the node has ended."""
        if self._process.exit_status is not None:
            raise self.failure(f'segmentation_node ended with status {self._process.exit_status}')

    def failure(self, text: str, *others: ChildProcess) -> DemoError:
        """Return an error with the end of the node's log, and of the `others` before it."""
        logs = [f'--- {child.log}\n{child.log_tail()}' for child in (*others, self._process)]
        return DemoError('\n'.join([f'{text}; its log:', *logs]))
