"""How the budget demo runs: the same drive and load to a node that has a budget, and to one whose point is fixed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import yaml
from diagnostic_msgs.msg import DiagnosticArray

from hybrid_seg_ros.inference.points_table import OperatingPoint, default_points_path, load_operating_points
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.model_path import resolve_model_path
from hybrid_seg_ros.ros.node_watch import NODE, NodeWatch, node_command
from hybrid_seg_ros.ros.session import RosSession, reliable_qos
from hybrid_seg_ros.ros.trials.budget_demo_figure import draw_budget
from hybrid_seg_ros.ros.trials.budget_demo_report import (
    BudgetDemoOptions,
    BudgetReport,
    BudgetRun,
    FrameSeen,
    StateSeen,
    count_cores,
    judge_phase,
    point_of,
    tokens_per_layer,
)
from hybrid_seg_ros.ros.trials.busy_cores import BusyCores
from hybrid_seg_ros.ros.trials.camera_stream import CameraStream, PlayedFrame, StreamPlayer

_IMAGE = '/camera/image'
_DEPTH = 10
_WAIT_S = 20.0
_LAST_S = 3.0
_PHASES = ('idle', 'loaded', 'idle')
_WARM_UP_S = 2.0
"""Played before the clock starts: the first frames of a process are slower than all others."""


def run_budget_demo(options: BudgetDemoOptions) -> BudgetReport:
    """Run the demo in the ROS network of the environment. Raises NodeError, BagError or ValueError."""
    model = resolve_model_path(str(options.model or ''))
    spec = ModelSpec.load(model)
    given = options.parameters.get('operating_points')
    table = Path(given).expanduser() if given else default_points_path(model)
    points = load_operating_points(table, spec)
    options.output.mkdir(parents=True, exist_ok=True)
    with BagReader(options.bag or resolve_model_path('package://hybrid_seg_ros/bags/camvid_val')) as bag:
        drive = Drive(bag, options.topic, options.label_topic, options.limit)
        show = _Show(options, spec, drive, points)
        runs = (
            show('budget', table),
            show('fixed', _dearest_alone(table, options.output / 'fixed.points.yaml')),
        )
    figure = options.output / 'budget.png'
    report = BudgetReport(
        show.model, options.target_ms, options.rate_hz, options.busy, count_cores(),
        tuple(point.name for point in points), tuple(point.miou for point in points), runs, str(figure),
    )  # fmt: skip
    draw_budget(report, figure)
    return report


class _Said:
    """What the node says in its diagnostics, with the time of the monotonic clock."""

    def __init__(self, session: RosSession) -> None:
        self._points: list[tuple[float, dict[str, str]]] = []
        session.node.create_subscription(DiagnosticArray, '/diagnostics', self._heard, reliable_qos(_DEPTH))

    def states(self, start_s: float, target_ms: float) -> tuple[StateSeen, ...]:
        """Return what it said of its operating point from `start_s` on."""
        return tuple(
            StateSeen(
                now_s - start_s, values['point'], values['reason'], float(values['p95_of_target']) * target_ms,
            )
            for now_s, values in self._points
            if now_s >= start_s and 'p95_of_target' in values
        )  # fmt: skip

    def _heard(self, diagnostics: DiagnosticArray) -> None:
        now_s = time.monotonic()
        for status in diagnostics.status:
            if status.name.endswith(': operating point'):
                self._points.append((now_s, {item.key: item.value for item in status.values}))


class _Show:
    """Plays the drive through all phases to one node after the other."""

    def __init__(
        self, options: BudgetDemoOptions, spec: ModelSpec, drive: Drive, points: Sequence[OperatingPoint]
    ) -> None:
        self._options, self._spec, self._drive, self._points = options, spec, drive, points
        self.model = ''

    def __call__(self, name: str, table: Path) -> BudgetRun:
        """Start a node that chooses from `table`, play, end it."""
        options = self._options
        parameters = {
            'image_transport': 'compressed' if self._drive.is_compressed else 'raw',
            **({'model_path': str(options.model)} if options.model else {}),
            **options.parameters,
            'target_latency_ms': options.target_ms,
            'operating_points': table,
        }
        process = ChildProcess(node_command(_IMAGE, parameters), options.output / f'node_{name}.log', os.environ)
        with process, RosSession('hybrid_seg_demo') as session:
            node, said = NodeWatch(session, process), _Said(session)
            stream = CameraStream(session, self._drive, len(self._spec.classes), _IMAGE, NODE)
            print(f'{name}: starting segmentation_node with {self._spec.name}', flush=True)
            node.wait_until_active(options.start_s)
            if not stream.wait_for_node(_WAIT_S):
                raise node.error('segmentation_node does not listen')
            self.model = node.model
            player = StreamPlayer(session, options.rate_hz, node.check_alive)
            player.play([stream], min(_WARM_UP_S, options.phase_s))
            start_s = time.monotonic()
            edges_s = [0.0]
            for phase in _PHASES:
                busy = BusyCores(options.busy, options.output) if phase == 'loaded' else nullcontext()
                print(f'{name}: {phase}, {options.phase_s:g} s', flush=True)
                stream.rewind()
                with busy:
                    player.play([stream], options.phase_s)
                    edges_s.append(time.monotonic() - start_s)
            player.await_stragglers([stream], _LAST_S)
            try:
                return self._judge(name, stream.frames, said, start_s, edges_s)
            except ValueError as error:
                raise node.error(str(error)) from error

    def _judge(
        self, name: str, frames: Sequence[PlayedFrame], said: _Said, start_s: float, edges_s: Sequence[float]
    ) -> BudgetRun:
        seen = [self._see(frame, start_s) for frame in frames if frame.is_answered and frame.tokens]
        states, phases = said.states(start_s, self._options.target_ms), []
        for phase, begin_s, end_s in zip(_PHASES, edges_s, edges_s[1:]):
            played = [frame for frame in frames if begin_s <= frame.sent_s - start_s < end_s]
            phases.append(judge_phase(
                phase, begin_s, end_s, played, [frame for frame in seen if begin_s <= frame.time_s < end_s],
                self._options.target_ms, self._points, states,
            ))  # fmt: skip
        return BudgetRun(
            name, tuple(phases), tuple(frame for frame in seen if frame.time_s >= 0),
            states,
        )  # fmt: skip

    def _see(self, frame: PlayedFrame, start_s: float) -> FrameSeen:
        tokens = tokens_per_layer(frame.tokens, self._spec.backbone.depth)
        return FrameSeen(frame.sent_s - start_s, frame.latency_ms, tokens, point_of(frame.tokens, self._points))


def _dearest_alone(table: Path, path: Path) -> Path:
    """Write a table of the most accurate point only: a budget has no choice then."""
    content = yaml.safe_load(table.read_text(encoding='utf-8'))
    content['points'] = content['points'][-1:]
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding='utf-8')
    return path
