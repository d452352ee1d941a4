"""The demo as its user runs it, with a tiny model: what it writes, and that it fails and ends in order."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack

import cv2
import pytest
from command_process import children_of, command_process, wait_for_children, wait_for_line, wait_until_gone
from tiny_model import write_tiny_model

from hybrid_seg_ros.inference.backends import AUTO
from hybrid_seg_ros.inference.backends.automatic import choose_placement
from hybrid_seg_ros.ros.play.demo_run import DemoReport, PhaseReport

FRAMES = 6
TIMEOUT_S = 120.0


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))


@pytest.fixture
def start_demo(tmp_path, model):
    """Start the demo on a few frames; further arguments go to it."""
    with ExitStack() as demos:

        def start(*arguments):
            return demos.enter_context(command_process(
                'demo', '--model', model, '--output', tmp_path / 'out', '--limit', FRAMES, '--timeout', 2,
                '--param', 'num_threads:=1', *arguments,
            ))  # fmt: skip

        yield start


def test_it_shows_what_the_node_does(start_demo, tmp_path):
    demo = start_demo()
    output, errors = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 0, errors
    taken = choose_placement(AUTO, AUTO, AUTO)
    for said in (
        'starting segmentation_node with tiny, hybrid@6+8', f'{taken.backend} in {taken.precision} on',
        f'lock-step  {FRAMES} frames', 'latency p50', 'kept@8', 'mIoU', 'dropped',
    ):  # fmt: skip
        assert said in output
    report = json.loads((tmp_path / 'out/report.json').read_text())
    assert list(report['tokens_mean']) == ['total', 'merged', 'kept@6', 'kept@8']
    full, live = report['lock_step'], report['real_time']
    assert full['sent'] == full['answered'] == full['scored_frames'] == live['sent'] == FRAMES
    assert 0 < live['answered'] <= FRAMES and live['latency_p95_ms'] >= live['latency_p50_ms'] > 0
    assert 0 <= full['miou'] <= 100
    sheet = cv2.imread(str(tmp_path / 'out/contact_sheet.png'))
    assert sheet.shape[0] > 1000 and sheet.std() > 20
    video = cv2.VideoCapture(str(tmp_path / 'out/overlay.mp4'))
    pictures = [video.read()[0] for _ in range(FRAMES + 1)]
    assert pictures == [True] * FRAMES + [False]
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(15, abs=0.1)


def test_a_drive_without_a_rate_is_played_all_at_once():
    phase = PhaseReport(6, 1, 0.0, 28.0, 28.0, None, 0)
    for rate_hz, said in ((15.0, '6 frames at 15.0 Hz: 1 answered'), (0.0, '6 frames all at once: 1 answered')):
        assert said in str(DemoReport('bag', rate_hz, 'node', phase, phase, {'total': 48.0}, ()))


@pytest.mark.parametrize(
    ('arguments', 'complaint', 'log'),
    [
        (['overlay_alpha:=7.0'], 'segmentation_node ended with status 1', 'overlay_alpha out of range'),
        (['device:=abacus'], 'segmentation_node is unconfigured: on_configure failed', 'unknown device'),
        (['enabled:=false', '--timeout', '0.3'], f'no masks came for {FRAMES} frames', 'waiting for images'),
    ],
    ids=['node ends', 'node cannot start', 'node is silent'],
)
def test_a_node_that_does_not_work_is_an_error_with_its_log(start_demo, arguments, complaint, log):
    demo = start_demo('--param', *arguments)
    _, errors = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 1
    assert complaint in errors and 'node.log' in errors and log in errors


def test_a_node_that_dies_on_the_way_is_an_error(start_demo):
    demo = start_demo()
    wait_for_line(demo, 'real-time')
    (node,) = (pid for pid, command in children_of(demo).items() if 'ros.segmentation_node' in command)
    os.kill(node, signal.SIGKILL)
    _, errors = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 1
    assert 'segmentation_node ended with status -9' in errors


@pytest.mark.parametrize(('number', 'phase'), [(signal.SIGINT, 'starting'), (signal.SIGTERM, 'real-time')])
def test_it_takes_its_children_along(start_demo, number, phase):
    demo = start_demo('--param', 'enabled:=false')
    wait_for_line(demo, phase)
    children = wait_for_children(demo)
    demo.send_signal(number)
    demo.communicate(timeout=15.0)  # the children hold its stderr: it takes as long as they last
    assert demo.returncode == 128 + number
    wait_until_gone(children)


@pytest.mark.parametrize(('arguments', 'complaint'), [
    (('--bag', 'absent'), 'bag absent: no such file or folder'),
    (('--param', 'variannt:=dense'), 'the node has no parameter variannt (did you mean variant?); it has '),
])  # fmt: skip
def test_what_is_not_there(start_demo, arguments, complaint):
    demo = start_demo(*arguments)
    _, errors = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 1 and errors.strip().startswith(f'hybrid_seg demo: {complaint}')
