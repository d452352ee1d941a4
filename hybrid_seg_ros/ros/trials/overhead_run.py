"""How the node's own cost is measured: node, camera and observer in three processes."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Optional

import numpy as np
from sensor_msgs.msg import Image

from hybrid_seg_ros.evaluation.benchmark.machine import describe_cpu
from hybrid_seg_ros.ros.cdr_header import read_stamp_ns
from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.node_watch import NODE, NodeWatch, node_command
from hybrid_seg_ros.ros.session import RosSession, matching_qos
from hybrid_seg_ros.ros.trials import steady_camera
from hybrid_seg_ros.ros.trials.overhead_report import Milliseconds, OverheadOptions, OverheadReport
from hybrid_seg_ros.ros.trials.process_figures import machine_cpu_s, process_figures

_IMAGE = '/camera/image'
_QUEUE = 50
_POLL_S = 0.1
_LAST_MASKS_S = 1.0
_DIAGNOSTICS_S = 5.0
"""The node sends them once a second."""


def measure_overhead(options: OverheadOptions) -> OverheadReport:
    """Measure, in the ROS network of the environment. Raises NodeError with the log of a process that failed."""
    parameters = {
        'mask_size': options.mask_size,
        **({'model_path': str(options.model)} if options.model else {}),
        **options.parameters,
    }
    command = node_command(_IMAGE, parameters, 'hybrid_seg_ros.ros.trials.idle_node')
    with tempfile.TemporaryDirectory(prefix='hybrid_seg_overhead_') as name:
        folder = Path(name)
        with ChildProcess(command, folder / 'node.log', os.environ) as node, RosSession('observer') as session:
            watch = NodeWatch(session, node)
            watch.wait_until_active(options.start_s)
            masks, processor = _Masks(session), _Processor(node.pid)
            stamps_ns = _play(options, folder, session, watch, masks, processor)
            session.spin_until(lambda: masks.answers(stamps_ns) == len(stamps_ns), _LAST_MASKS_S)
            watch.wait_for_diagnostics(_DIAGNOSTICS_S)
            images, steps = watch.values('images'), watch.values('segmentation')
            figures, (node_percent, others_percent) = process_figures(node.pid), processor.percent()
        return OverheadReport(
            machine=describe_cpu(),
            model=watch.model.removeprefix('active: '),
            image_hw=options.size_hw,
            rate_hz=options.rate_hz,
            sent_hz=(len(stamps_ns) - 1) * 1e9 / (stamps_ns[-1] - stamps_ns[0]),
            mask_size=options.mask_size,
            shared_memory=options.shared_memory,
            sent=len(stamps_ns),
            received=int(images.get('received', 0)),
            answered=masks.answers(stamps_ns),
            node_ms=_step(steps, 'total'),
            steps_ms=_steps(steps),
            camera_to_mask_ms=_percentiles(masks.latencies_ms(stamps_ns)),
            cpu_percent=node_percent,
            others_percent=others_percent,
            resident_mib=figures.resident_mib,
            threads=figures.threads,
        )


class _Masks:
    """When which mask came."""

    def __init__(self, session: RosSession) -> None:
        topic = f'{NODE}/mask'
        self._arrivals_ns: dict[int, int] = {}
        # raw: the stamp is all that is needed of a mask, so it is never deserialised
        session.node.create_subscription(
            Image, topic, self._on_mask, matching_qos(session.node, topic, _QUEUE), raw=True
        )

    def answers(self, stamps_ns: Sequence[int]) -> int:
        """Return how many of these frames have their mask."""
        return len(self._arrivals_ns.keys() & set(stamps_ns))

    def latencies_ms(self, stamps_ns: Sequence[int]) -> list[float]:
        """Return the milliseconds from each frame's stamp to its mask's arrival, of those that have one."""
        return [(self._arrivals_ns[stamp] - stamp) / 1e6 for stamp in stamps_ns if stamp in self._arrivals_ns]

    @property
    def count(self) -> int:
        """Number of masks so far."""
        return len(self._arrivals_ns)

    def _on_mask(self, cdr: bytes) -> None:
        self._arrivals_ns.setdefault(read_stamp_ns(cdr), time.time_ns())  # the clock of the camera's stamps


class _Processor:
    """Who takes processor time while masks come: the node, and whoever has nothing to do with it."""

    def __init__(self, node_pid: int) -> None:
        self._node_pid = node_pid
        self._looks: list[tuple[float, float, float]] = []

    def look(self, camera_pid: int) -> None:
        """Note what all have taken so far."""
        node_s = process_figures(self._node_pid).cpu_s
        ours_s = node_s + process_figures(camera_pid).cpu_s + time.process_time()
        self._looks.append((time.monotonic(), node_s, machine_cpu_s() - ours_s))

    def percent(self) -> tuple[Optional[float], Optional[float]]:
        """Return what the node and what others took, between the first and the last look, in per cent of one core."""
        if len(self._looks) < 2:
            return None, None
        seconds, node_s, others_s = np.subtract(self._looks[-1], self._looks[0])
        return float(100 * node_s / seconds), float(max(0.0, 100 * others_s / seconds))


def _play(
    options: OverheadOptions, folder: Path, session: RosSession, watch: NodeWatch, masks: _Masks,
    processor: _Processor,
) -> list[int]:  # fmt: skip
    """Let the camera play, look at the processes while masks come, and return the stamps that were sent."""
    output = folder / 'stamps.json'
    command = steady_camera.command(_IMAGE, options.size_hw, options.rate_hz, options.frames, output)
    with ChildProcess(command, folder / 'camera.log', os.environ) as camera:
        while camera.exit_status is None:
            watch.check_alive()
            before = masks.count
            session.spin_for(_POLL_S)
            if masks.count > before:
                with suppress(OSError):  # one of them is ending: the next turn of the loop says which
                    processor.look(camera.pid)
        if not output.is_file():
            raise watch.error(f'the camera ended with status {camera.exit_status}', camera)
    return json.loads(output.read_text(encoding='utf-8'))


def _steps(values: Mapping[str, str]) -> dict[str, Milliseconds]:
    """Return the node's steps by name, the network's aside, and what none of them accounts for."""
    names = [name.removesuffix('_p50_ms') for name in values if name.endswith('_p50_ms')]
    steps = {name: _step(values, name) for name in names if name not in ('total', 'inference')}
    if steps:
        inference, total = _step(values, 'inference'), _step(values, 'total')
        rest = total.p50 - inference.p50 - sum(step.p50 for step in steps.values())
        steps['rest'] = Milliseconds(rest)
    return steps


def _step(values: Mapping[str, str], name: str) -> Optional[Milliseconds]:
    if f'{name}_p50_ms' not in values:
        return None
    return Milliseconds(float(values[f'{name}_p50_ms']), float(values[f'{name}_p95_ms']))


def _percentiles(milliseconds: Sequence[float]) -> Optional[Milliseconds]:
    if not milliseconds:
        return None
    return Milliseconds(*(float(each) for each in np.percentile(milliseconds, (50, 95))))
