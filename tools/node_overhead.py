"""What the node costs without its network: the real node, its network left out, and a camera, over DDS."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from played_camera import PlayedCamera, percentile_ms, play
from process_figures import machine_cpu_s, process_figures
from rclpy.serialization import serialize_message
from std_msgs.msg import Header
from tool import IDLE_NODE, add_node_arguments, count, positive, run_tool

from hybrid_seg_ros.evaluation.benchmark.machine import describe_cpu
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.ros.play.node_process import parse_parameter
from hybrid_seg_ros.ros.play.running_node import running_node
from hybrid_seg_ros.ros.publishers import array_to_image

TARGET_P50_MS = 5.0
"""What the node may take of a 1280x720 image, beside the network."""
_START_S, _LAST_MASKS_S = 120.0, 1.0
_DIAGNOSTICS_S = 5.0
"""The node sends them once a second."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_node_arguments(parser)
    parser.add_argument('--size', type=count, nargs=2, metavar=('HEIGHT', 'WIDTH'), default=(720, 1280),
                        help='of the image (720 1280)')  # fmt: skip
    parser.add_argument('--rate', type=positive, default=30.0, help='images per second (%(default)s)')
    parser.add_argument('--duration', type=positive, default=20.0, help='seconds (%(default)s)')
    parser.add_argument('--mask-size', choices=('network', 'image'), default='network', help='(%(default)s)')
    parser.add_argument('--no-shm', action='store_true', help='without config/fastdds_shm.xml, to see what it is for')
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures to this file')
    parser.add_argument('--check', action='store_true',
                        help=f'exit status 1 if a frame is lost or p50 in the node is above {TARGET_P50_MS:g} ms')


def run(args: argparse.Namespace) -> int:
    """Return 0; with --check 1 if the target is missed."""
    report = node_overhead(args)
    if args.json is not None:
        write_json(args.json, {**dataclasses.asdict(report), 'lost': report.lost})
    print(report)
    return 1 if args.check and report.problem else 0


def node_overhead(args: argparse.Namespace) -> OverheadReport:
    """Measure in a ROS network of its own. Raises NodeError with the log of a node that failed."""
    if args.rate * args.duration < 2:
        raise ValueError(f'duration: expected time for 2 frames, got {args.duration} s at {args.rate} Hz')
    parameters = {
        'mask_size': args.mask_size,
        **({'model_path': str(args.model)} if args.model else {}),
        **dict(map(parse_parameter, args.param)),
    }
    image = serialize_message(array_to_image(street_scene(tuple(args.size)), Header(frame_id='camera')))
    with tempfile.TemporaryDirectory() as folder, running_node(
        parameters, Path(folder) / 'node.log', _START_S, program=IDLE_NODE, shared_memory=not args.no_shm
    ) as node:
        camera, processor = PlayedCamera(node, [image]), _Processor(node.pid)
        play(node, [camera], args.rate, args.duration, processor.look)
        camera.await_last(_LAST_MASKS_S)
        node.wait_for_diagnostics(_DIAGNOSTICS_S)
        frames, steps, figures = camera.frames, node.values('segmentation'), process_figures(node.pid)
        answered = sum(frame.is_answered for frame in frames)
        node_percent, others_percent = processor.percent()
        return OverheadReport(
            machine=describe_cpu(),
            model=node.model.removeprefix('active: '),
            image_hw=tuple(args.size),
            rate_hz=args.rate,
            sent_hz=(len(frames) - 1) / (frames[-1].sent_s - frames[0].sent_s),
            mask_size=args.mask_size,
            shared_memory=not args.no_shm,
            sent=len(frames),
            received=int(node.values('images').get('received', 0)),
            answered=answered,
            node_ms=_step(steps, 'total'),
            steps_ms=_steps(steps),
            camera_to_mask_ms=Milliseconds(percentile_ms(frames, 50), percentile_ms(frames, 95)) if answered else None,
            cpu_percent=node_percent,
            others_percent=others_percent,
            resident_mib=figures.resident_mib,
            threads=figures.threads,
        )


@dataclass(frozen=True)
class Milliseconds:
    """Median of what a step took, and its 95th percentile where that is known."""

    p50: float
    p95: Optional[float] = None

    def __str__(self) -> str:
        return f'p50 {self.p50:6.2f} ms' + ('' if self.p95 is None else f'   p95 {self.p95:6.2f} ms')


@dataclass(frozen=True)
class OverheadReport:
    """What the node cost.

    `sent`, `received` and `answered` count frames: published by the camera, received by the node, come back as masks.
    `node_ms` is from an image's receipt to its mask's publication, `steps_ms` what it consists of, as the node says in
    its diagnostics, of its last 200 frames; `camera_to_mask_ms` from the camera's publishing an image to the mask's
    arrival here, of all frames. `cpu_percent` is of one core, `others_percent` likewise what processes took that have
    nothing to do with it. Memory is resident, in MiB.
    """

    machine: str
    model: str
    image_hw: tuple[int, int]
    rate_hz: float
    sent_hz: float
    mask_size: str
    shared_memory: bool
    sent: int
    received: int
    answered: int
    node_ms: Optional[Milliseconds]
    steps_ms: dict[str, Milliseconds]
    camera_to_mask_ms: Optional[Milliseconds]
    cpu_percent: float
    others_percent: float
    resident_mib: float
    threads: int

    @property
    def lost(self) -> int:
        """Frames without a mask."""
        return self.sent - self.answered

    @property
    def problem(self) -> str:
        """What is worse than it should be; '' if nothing is."""
        if self.lost:
            return f'{self.lost} of {self.sent} frames lost'
        if self.node_ms is None or self.node_ms.p50 > TARGET_P50_MS:
            return f'p50 in the node above {TARGET_P50_MS:g} ms'
        return ''

    def __str__(self) -> str:
        height, width = self.image_hw
        memory = 'config/fastdds_shm.xml' if self.shared_memory else 'its default'
        lines = [
            f'machine       {self.machine}',
            f'node          {self.model}, its network left out',
            f'camera        {width}x{height} rgb8 at {self.sent_hz:.1f} Hz (asked for {self.rate_hz:g}), shared memory '
            f'as {memory} says',
            f'frames        {self.sent} sent, {self.received} received, {self.answered} answered with a mask of '
            f'{self.mask_size} size, {self.lost} lost',
        ]
        if self.node_ms is not None:
            lines.append(f'in the node   {self.node_ms}   from receipt to publication, of which')
            lines += [f'  {name:<12}{step}' for name, step in self.steps_ms.items()]
        if self.camera_to_mask_ms is not None:
            lines.append(f'camera->mask  {self.camera_to_mask_ms}   from publishing the image to receiving the mask')
        lines += [
            f'processor     {self.cpu_percent:.1f} % of one core; other processes {self.others_percent:.1f} %',
            f'memory        {self.resident_mib:.0f} MiB resident, {self.threads} threads',
            f'target        {self.problem or f"kept: p50 within {TARGET_P50_MS:g} ms, no frame lost"}',
        ]
        return '\n'.join(lines)


class _Processor:
    """Who takes processor time while frames are played: the node, and whoever has nothing to do with it."""

    def __init__(self, node_pid: int) -> None:
        self._node_pid = node_pid
        self._looks: list[tuple[float, float, float]] = []

    def look(self) -> None:
        """Note what all have taken so far."""
        node_s = process_figures(self._node_pid).cpu_s
        self._looks.append((time.monotonic(), node_s, machine_cpu_s() - node_s - time.process_time()))

    def percent(self) -> tuple[float, float]:
        """Return what the node and what others took, between the first and the last look, in per cent of one core."""
        seconds, node_s, others_s = np.subtract(self._looks[-1], self._looks[0])
        return float(100 * node_s / seconds), float(max(0.0, 100 * others_s / seconds))


def _steps(values: Mapping[str, str]) -> dict[str, Milliseconds]:
    """Return the node's steps by name, the network's aside, and what none of them accounts for."""
    names = [name.removesuffix('_p50_ms') for name in values if name.endswith('_p50_ms')]
    steps = {name: _step(values, name) for name in names if name not in ('total', 'inference')}
    if steps:
        inference, total = _step(values, 'inference'), _step(values, 'total')
        steps['rest'] = Milliseconds(total.p50 - inference.p50 - sum(step.p50 for step in steps.values()))
    return steps


def _step(values: Mapping[str, str], name: str) -> Optional[Milliseconds]:
    if f'{name}_p50_ms' not in values:
        return None
    return Milliseconds(float(values[f'{name}_p50_ms']), float(values[f'{name}_p95_ms']))


if __name__ == '__main__':
    sys.exit(run_tool(sys.modules[__name__]))
