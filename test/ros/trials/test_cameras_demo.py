"""demo-cameras with a tiny model: both schedules, a camera that falls silent, the picture."""

from __future__ import annotations

import json

import cv2
import pytest
from command_process import command_process
from tiny_model import write_tiny_model

TIMEOUT_S = 60.0
FRAMES = 3


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))


def run_demo(*arguments):
    options = ('--backend', 'pytorch', '--param', 'num_threads:=1', '--limit', 4)
    with command_process('demo-cameras', *options, *arguments) as demo:
        output, errors = demo.communicate(timeout=TIMEOUT_S)
        return demo.returncode, output, errors


def test_it_shows_two_cameras_in_turns_and_in_batches(model, tmp_path):
    status, output, errors = run_demo('--model', model, '--output', tmp_path, '--phase', FRAMES / 4, '--rate', 4)
    assert status == 0, errors
    rows = json.loads((tmp_path / 'report.json').read_text())['rows']
    assert [(row['schedule'], row['phase'], row['camera']) for row in rows] == [
        (schedule, phase, camera)
        for schedule in ('turns', 'batch')
        for phase in ('both', 'rear silent', 'both again')
        for camera in ('front', 'rear')
    ]
    for row in rows:
        if (row['phase'], row['camera']) == ('rear silent', 'rear'):
            assert row['sent'] == row['answered'] == 0
        else:
            assert row['sent'] == FRAMES and 0 < row['answered'] <= FRAMES and 0 <= row['miou'] <= 100
    for said in ('silent', 'turns', 'batch', 'front and rear, 4 Hz each'):
        assert said in output
    sheet = cv2.imread(str(tmp_path / 'cameras.png'))
    assert sheet.shape[0] > 1500 and sheet.std() > 20


def test_a_node_that_is_silent_is_an_error_with_its_log(model, tmp_path):
    status, _, errors = run_demo(
        '--model', model, '--output', tmp_path, '--phase', 0.5, '--rate', 4, '--param', 'enabled:=false'
    )
    assert status == 1
    assert 'no masks came for 2 frames of the camera front (both)' in errors and 'node_turns.log' in errors


def test_what_is_refused(tmp_path):
    status, _, errors = run_demo('--output', tmp_path, '--rate', 0)
    assert (status, errors.strip()) == (1, 'hybrid_seg demo-cameras: rate_hz: expected more than 0, got 0')
