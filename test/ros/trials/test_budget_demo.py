"""demo-budget with a tiny model: what it writes, that it fails and ends in order; and how frames become a table."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import cv2
import pytest
from command_process import ROOT, children_of, command_process, wait_for_line, wait_until_gone
from tiny_model import write_tiny_model, write_tiny_points

from hybrid_seg_ros.inference.points_table import default_points_path, load_operating_points
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.ros.trials.budget_demo_report import (
    BudgetDemoOptions,
    FrameSeen,
    StateSeen,
    judge_phase,
    point_of,
    tokens_per_layer,
)
from hybrid_seg_ros.ros.trials.camera_stream import PlayedFrame

TIMEOUT_S = 60.0
ARGUMENTS = ('--backend', 'pytorch', '--param', 'num_threads:=1', '--limit', 4)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    model = write_tiny_model(tmp_path_factory.mktemp('model'))
    write_tiny_points(model)
    return model


@pytest.fixture(scope='module')
def points(model):
    return load_operating_points(default_points_path(model), ModelSpec.load(model))


@pytest.fixture
def start_demo(tmp_path):
    with ExitStack() as demos:

        def start(model, *arguments):
            return demos.enter_context(
                command_process('demo-budget', '--model', model, '--output', tmp_path, *ARGUMENTS, *arguments)
            )

        yield start


def test_it_shows_a_budget_beside_a_fixed_point(start_demo, model, tmp_path):
    pytest.importorskip('matplotlib', reason='comes with requirements/ros.txt, or from the system')
    demo = start_demo(model, '--target', 2000, '--phase', 0.5, '--rate', 8, '--busy', 1)
    output, errors = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 0, errors
    assert '2000 ms' in output and 'loaded: 1 busy process on' in output
    report = json.loads((tmp_path / 'report.json').read_text())
    budget, fixed = report['runs']
    for run in (budget, fixed):
        assert [phase['name'] for phase in run['phases']] == ['idle', 'loaded', 'idle']
        for phase in run['phases']:
            assert phase['sent'] == 4 and 0 < phase['answered'] <= 4
            assert 0 < phase['p50_ms'] <= phase['p95_ms'] and 0 <= phase['miou'] <= 100
            assert f'{phase["p50_ms"]:.0f}' in output
        assert len(run['frames']) == sum(phase['answered'] for phase in run['phases'])
        assert run['states'] and run['states'][-1]['point'] in report['points']
    assert {frame['point'] for frame in fixed['frames']} == {2} and fixed['phases'][0]['table_miou'] == 70.0
    assert {frame['tokens'] for frame in fixed['frames']} == {48.0}
    assert report['points'][2] == 'dense' and 'dense' in (tmp_path / 'fixed.points.yaml').read_text()
    assert cv2.imread(str(tmp_path / 'budget.png')).shape == (1280, 1600, 3)


def test_it_takes_node_and_load_along(start_demo, model):
    demo = start_demo(model, '--phase', 3, '--rate', 8, '--busy', 1)
    wait_for_line(demo, 'loaded')
    deadline = time.monotonic() + 3.0
    while len(children := children_of(demo)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(children) >= 2, 'the node, and the load'
    demo.send_signal(signal.SIGTERM)
    demo.communicate(timeout=15.0)
    assert demo.returncode == 128 + signal.SIGTERM
    wait_until_gone(children)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_busy_processes_do_not_outlive_the_one_that_started_them(tmp_path, number):
    program = (
        'import signal, sys, time\nfrom pathlib import Path\n'
        'from hybrid_seg_ros.ros.trials.busy_cores import BusyCores\n'
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n'
        'with BusyCores(2, Path(sys.argv[1])):\n    print("busy", flush=True)\n    time.sleep(60)'
    )
    command = [sys.executable, '-c', program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        wait_for_line(parent, 'busy')
        busy = children_of(parent)
        assert len(busy) == 2
        parent.send_signal(number)
        parent.communicate(timeout=TIMEOUT_S)
    wait_until_gone(busy)


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (('--target', 0), 'target_ms: expected more than 0, got 0'),
        (('--busy', 0), '--busy: expected at least 1 process, got 0'),
        (('--param', 'operating_points:=absent.yaml'), 'operating points absent.yaml: no such file; make one with'),
    ],
)
def test_what_is_refused(start_demo, model, arguments, complaint):
    demo = start_demo(model, *arguments)
    _, errors = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 1 and errors.startswith(f'hybrid_seg demo-budget: {complaint}')
    assert len(errors.splitlines()) == 1


def test_a_node_that_cannot_start_is_an_error_with_its_log(start_demo, model):
    demo = start_demo(model, '--param', 'device:=abacus')
    _, errors = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 1 and 'node_budget.log' in errors and 'unknown device' in errors


def test_which_point_ran_is_known_by_its_tokens(points):
    for index, point in enumerate(points):
        assert point_of({stage: round(count) for stage, count in point.tokens.items()}, points) == index
    with pytest.raises(ValueError, match='no operating point has the stages total, merged, kept@6'):
        point_of({'total': 48, 'merged': 33, 'kept@6': 20}, points)


@pytest.mark.parametrize(
    ('tokens', 'mean'),
    [
        ({'total': 48, 'merged': 48}, 48),
        ({'total': 48, 'merged': 36, 'kept@8': 12}, (36 * 8 + 12 * 4) / 12),
        ({'total': 48, 'merged': 36, 'kept@6': 24, 'kept@8': 12}, (36 * 6 + 24 * 2 + 12 * 4) / 12),
    ],
)
def test_tokens_per_layer(tokens, mean):
    assert tokens_per_layer(tokens, 12) == pytest.approx(mean)


def test_a_phase_counts_what_was_answered_and_judges_what_came_after_a_second(points):
    latencies = {0.0: 500.0, 0.5: None, 1.5: 80.0, 2.0: 90.0}
    played = [PlayedFrame(0, sent_s, latency_ms) for sent_s, latency_ms in latencies.items()]
    seen = [FrameSeen(0.0, 500.0, 48.0, 2), FrameSeen(1.5, 80.0, 30.0, 0), FrameSeen(2.0, 90.0, 30.0, 0)]
    states = [StateSeen(0.5, 'dense', '', 70.0), StateSeen(3.5, 'dense', '', 85.0), StateSeen(4.5, 'dense', '', 99.0)]
    phase = judge_phase('idle', 0.0, 4.0, played, seen, 100.0, points, states)
    assert (phase.sent, phase.answered, phase.fps, phase.changes) == (4, 3, 0.75, 1)
    assert phase.node_p95_ms == 85 and phase.p50_ms == 90
    assert phase.p95_ms > 400 and phase.p95_settled_ms == pytest.approx(89.5)
    assert phase.within == pytest.approx(2 / 3) and phase.tokens == pytest.approx(36)
    assert phase.table_miou == pytest.approx((70 + 60 + 60) / 3) and phase.miou is None
    with pytest.raises(ValueError, match="no masks came in the phase 'idle', for 4 frames"):
        judge_phase('idle', 0.0, 4.0, played, [], 100.0, points, [])


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match='rate_hz: expected more than 0, got -1'):
        BudgetDemoOptions(Path('out'), rate_hz=-1)
