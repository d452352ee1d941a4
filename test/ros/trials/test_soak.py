"""Soak: the command as its user runs it, with a node that works, that dies, and a user who has seen enough."""

from __future__ import annotations

import json
import math
import os
import signal

import cv2
import pytest
from command_process import children_of, command_process, wait_for_line, wait_until_gone
from tiny_model import write_tiny_model

from hybrid_seg_ros import cli
from hybrid_seg_ros.ros.trials.process_figures import ProcessFigures
from hybrid_seg_ros.ros.trials.soak_figure import draw_soak
from hybrid_seg_ros.ros.trials.soak_report import Sample, SoakReport

TIMEOUT_S = 60.0


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))


@pytest.fixture
def soak(model, tmp_path):
    """Return the arguments of a soak that writes its figures to soak.json."""
    parameters = ('--param', 'num_threads:=1', '--param', 'backend:=pytorch')
    return 'soak', '--model', model, '--json', tmp_path / 'soak.json', *parameters


def report_of(samples, **fields):
    return SoakReport('a board', 'tiny', 'a bag', **{
        'frames': 1000, 'max_growth_mib': 16.0, 'sent': 1000, 'samples': tuple(samples), **fields,
    })  # fmt: skip


def samples_of(memory_mib, step=10, latency_ms=20.0):
    """Return a sample every `step` frames, of a node that has memory_mib(frames)."""
    return [
        Sample(frames, frames / 50, 0, latency_ms, 2 * latency_ms,
               ProcessFigures(memory_mib(frames), memory_mib(frames) / 2, 17.0, 20, 30, frames / 100))
        for frames in range(step, 1001, step)
    ]  # fmt: skip


def test_it_says_whether_memory_is_flat(soak, tmp_path):
    picture = tmp_path / 'soak.png'
    with command_process(*soak, '--frames', 40, '--picture', picture) as command:
        output, errors = command.communicate(timeout=TIMEOUT_S)
    assert command.returncode == 0, errors
    for said in ('40 frames', 'tiny, hybrid@6+8, pytorch', '40 of 40 sent', 'MiB in 1000 frames', 'verdict   flat'):
        assert said in output
    report = json.loads((tmp_path / 'soak.json').read_text())
    assert (report['sent'], report['verdict'], report['ended']) == (40, 'flat', '')
    assert [sample['frames'] for sample in report['samples']] == list(range(1, 41))
    assert all(sample['resident_mib'] > 50 and sample['open_files'] > 3 for sample in report['samples'])
    assert cv2.imread(str(picture)).shape == (800, 1200, 3)


@pytest.mark.parametrize(
    ('killed', 'number', 'status', 'said'),
    [
        ('node', signal.SIGKILL, 1, 'segmentation_node ended with status -9'),
        ('command', signal.SIGINT, 130, 'interrupted'),
    ],
)
def test_it_reports_what_it_has_when_it_ends_early(soak, tmp_path, killed, number, status, said):
    with command_process(*soak, '--frames', 2000, '--idle', '--timeout', 2) as command:
        wait_for_line(command, ' 100 frames')
        (node,) = children_of(command)
        os.kill(node if killed == 'node' else command.pid, number)
        output, errors = command.communicate(timeout=TIMEOUT_S)
        wait_until_gone([node])
    assert command.returncode == status, errors
    assert f'ended     early: {said}' in output and 'of 2000 sent' in output
    report = json.loads((tmp_path / 'soak.json').read_text())
    assert report['ended'].startswith(said) and len(report['samples']) >= 10
    assert 100 <= report['sent'] < 2000


def test_a_node_that_does_not_start(soak, tmp_path):
    with command_process(*soak, '--param', 'overlay_alpha:=7.0') as command:
        _, errors = command.communicate(timeout=TIMEOUT_S)
    assert command.returncode == 1
    assert 'segmentation_node ended with status 1' in errors and 'overlay_alpha out of range' in errors
    assert not (tmp_path / 'soak.json').exists()


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (['--frames', '0'], 'frames: expected at least 1, got 0'),
        (['--rate', '0'], 'rate: expected more than 0, got 0.0'),
        (['--max-growth', '0'], 'max-growth: expected more than 0 MiB, got 0.0'),
        (['--bag', 'absent'], 'bag absent: no such file or folder'),
    ],
)
def test_it_says_what_it_expects(arguments, complaint, capsys):
    assert cli.main(['soak', *arguments]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ('memory_mib', 'verdict', 'growth', 'slope'),
    [
        (lambda frames: 300.0, 'flat', 0.0, 0.0),
        (lambda frames: 200.0 if frames <= 50 else 300.0, 'flat', 0.0, 0.0),  # the warm-up does not count
        (lambda frames: 300.0 + frames / 100, 'flat', 8.5, 10.0),
        (lambda frames: 300.0 + frames / 50, 'grows', 17.0, 20.0),
        (lambda frames: 300.0 - frames / 100, 'flat', -8.5, -10.0),
    ],
)
def test_the_verdict(memory_mib, verdict, growth, slope):
    report = report_of(samples_of(memory_mib))
    assert report.verdict == verdict and f'verdict   {verdict}' in str(report)
    assert report.resident_mib.growth == pytest.approx(growth) and report.slope_mib == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize('samples', [[], samples_of(lambda frames: 300.0, step=1000)])
def test_too_few_samples_to_tell(samples, tmp_path):
    report = report_of(samples, ended='interrupted')
    assert report.verdict == 'too short' and report.resident_mib is None
    assert 'interrupted' in str(report) and report.to_dict()['growth_mib'] is None
    draw_soak(report, tmp_path / 'soak.png')


def test_frames_without_an_answer_are_in_no_percentile(tmp_path):
    report = report_of(samples_of(lambda frames: 300.0, latency_ms=math.nan))
    assert 'null' in json.dumps(report.to_dict(), allow_nan=False)
    draw_soak(report, tmp_path / 'soak.png')
    assert cv2.imread(str(tmp_path / 'soak.png')).std() > 5
