"""The budget demo: a node that keeps its latency budget while the machine is loaded, beside one that cannot."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from budget_figure import draw_budget
from budget_report import BudgetReport, BudgetRun, FrameSeen, judge_phase, point_of, tokens_per_layer
from played_camera import DriveCamera, play
from tool import count, positive, run_tool

from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.backends import AUTO
from hybrid_seg_ros.inference.points_table import OperatingPoint, default_points_path, load_operating_points
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.ros.bags.drive import Drive, opened_drive
from hybrid_seg_ros.ros.play.demo import add_drive_arguments
from hybrid_seg_ros.ros.play.node_process import ChildProcess, parse_parameter
from hybrid_seg_ros.ros.play.running_node import drive_parameters, running_node

_PHASES = ('idle', 'loaded', 'idle')
_START_S, _LAST_S = 300.0, 3.0
_WARM_UP_S = 2.0
"""Played before the clock starts: the first frames of a process are slower than all others."""
_CORES = len(os.sched_getaffinity(0))

# ends by itself when its parent does, however that came about
_BUSY = 'import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(100000):\n        pass'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_drive_arguments(parser, Path('out/demo_budget'))
    parser.add_argument('--target', type=positive, default=150.0, metavar='MS', help='budget (%(default)s)')
    parser.add_argument('--phase', type=positive, default=20.0, metavar='S',
                        help='seconds without load, with it, without it (%(default)s each)')  # fmt: skip
    parser.add_argument('--busy', type=count, default=_CORES, metavar='N',
                        help='processes that load the machine (%(default)s)')  # fmt: skip
    parser.add_argument('--rate', type=positive, default=6.0, metavar='HZ', help='of the camera (%(default)s)')
    parser.add_argument('--backend', default=AUTO, help='of the node (%(default)s: the fastest here in float32)')


def run(args: argparse.Namespace) -> int:
    """Run the demo; write its report and picture."""
    report = demo_budget(args)
    write_json(args.output / 'report.json', dataclasses.asdict(report))
    draw_budget(report, args.output / 'budget.png')
    print(report)
    return 0


def demo_budget(args: argparse.Namespace) -> BudgetReport:
    """Play the same drive and load to a node with a budget, and to one whose point is fixed.

    Raises NodeError with its log, BagError or ValueError.
    """
    # float32: in bfloat16 a load is no match for the default budget
    given = {'backend': args.backend, 'precision': 'float32', **dict(map(parse_parameter, args.param))}
    model = args.model or ''
    spec = ModelSpec.load(model)
    table = Path(given['operating_points']).expanduser() if 'operating_points' in given else default_points_path(model)
    points = load_operating_points(table, spec)
    args.output.mkdir(parents=True, exist_ok=True)
    dearest = args.output / 'fixed.points.yaml'  # the most accurate point only: a budget has no choice then
    content = yaml.safe_load(table.read_text(encoding='utf-8'))
    dearest.write_text(yaml.safe_dump({**content, 'points': content['points'][-1:]}), encoding='utf-8')
    with opened_drive(args.bag, args.topic, args.label_topic, args.limit) as drive:
        parameters = {**drive_parameters(drive, args.model, given), 'target_latency_ms': args.target}
        budget, says = play_phases('budget', {**parameters, 'operating_points': table}, args, spec, drive, points)
        fixed, _ = play_phases('fixed', {**parameters, 'operating_points': dearest}, args, spec, drive, points)
    return BudgetReport(
        says, args.target, args.rate, args.busy, _CORES, tuple(point.name for point in points),
        tuple(point.miou for point in points), (budget, fixed), str(args.output / 'budget.png'),
    )  # fmt: skip


def play_phases(
    name: str, parameters: Mapping[str, Any], args: argparse.Namespace, spec: ModelSpec, drive: Drive,
    points: Sequence[OperatingPoint],
) -> tuple[BudgetRun, str]:  # fmt: skip
    """Play the drive through all phases to a node of its own; return what came of it, and what the node says it is."""
    print(f'{name}: starting segmentation_node with {spec.name}', flush=True)
    said_ms: list[tuple[float, float]] = []

    def listen(values: Mapping[str, Mapping[str, str]]) -> None:
        share = values.get('operating point', {}).get('p95_of_target')
        if share is not None:
            said_ms.append((time.monotonic(), float(share) * args.target))

    with running_node(parameters, args.output / f'node_{name}.log', _START_S) as node:
        node.on_diagnostics = listen
        camera = DriveCamera(node, drive, len(spec.classes))
        play(node, [camera], args.rate, min(_WARM_UP_S, args.phase))
        start_s, edges_s = time.monotonic(), [0.0]
        for phase in _PHASES:
            print(f'{name}: {phase}, {args.phase:g} s', flush=True)
            camera.rewind()
            with busy_cores(args.busy, args.output) if phase == 'loaded' else nullcontext():
                play(node, [camera], args.rate, args.phase)
                edges_s.append(time.monotonic() - start_s)
        camera.await_last(_LAST_S)
        tokens = camera.tokens()
        seen = [
            FrameSeen(
                frame.sent_s - start_s, frame.latency_ms, tokens_per_layer(tokens[frame.stamp_ns], spec.backbone.depth),
                point_of(tokens[frame.stamp_ns], points),
            )
            for frame in camera.frames if frame.stamp_ns in tokens
        ]  # fmt: skip
        try:
            phases = [
                judge_phase(
                    phase, begin_s, end_s,
                    [frame for frame in camera.frames if begin_s <= frame.sent_s - start_s < end_s],
                    [frame for frame in seen if begin_s <= frame.time_s < end_s], args.target, points,
                    [p95_ms for at_s, p95_ms in said_ms if begin_s <= at_s - start_s < end_s and p95_ms > 0],
                )
                for phase, begin_s, end_s in zip(_PHASES, edges_s, edges_s[1:])
            ]  # fmt: skip
        except ValueError as error:
            raise node.error(str(error)) from error
        return BudgetRun(name, tuple(phases), tuple(frame for frame in seen if frame.time_s >= 0)), node.model


@contextmanager
def busy_cores(number: int, logs: Path) -> Iterator[None]:
    """Run so many processes, each busy on a core, that end with the block, or with this process."""
    with ExitStack() as started:
        for index in range(number):
            command = [sys.executable, '-I', '-S', '-c', _BUSY, str(os.getpid())]
            started.enter_context(ChildProcess(command, logs / f'busy_{index}.log'))
        yield


if __name__ == '__main__':
    sys.exit(run_tool(sys.modules[__name__]))
