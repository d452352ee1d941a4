"""What the node costs beside its network: the command as its user runs it, and the parts it is made of."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from command_process import command_process
from tiny_model import tiny_spec, write_tiny_model

from hybrid_seg_ros import cli
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.inference.backends import create_backend
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.ros.trials.idle_node import IdleBackend
from hybrid_seg_ros.ros.trials.overhead_report import TARGET_P50_MS, Milliseconds, OverheadReport

TIMEOUT_S = 60.0
REPORT = OverheadReport(
    machine='a board', model='tiny', image_hw=(720, 1280), rate_hz=30.0, sent_hz=29.9,
    mask_size='network', shared_memory=True, sent=600, received=600, answered=600, node_ms=Milliseconds(4.0, 5.0),
    steps_ms={}, camera_to_mask_ms=None, cpu_percent=None, others_percent=None, resident_mib=300.0, threads=9,
)  # fmt: skip


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))


def test_it_measures_the_real_node(model, tmp_path):
    out = tmp_path / 'new' / 'overhead.json'
    with command_process(
        'node-overhead', '--model', model, '--size', 120, 160, '--rate', 20, '--duration', 1, '--json', out,
        '--param', 'num_threads:=1', '--param', 'backend:=pytorch',
    ) as command:  # fmt: skip
        output, errors = command.communicate(timeout=TIMEOUT_S)
    assert command.returncode == 0, errors
    for said in ('tiny, hybrid@6+8, idle pytorch', '160x120 rgb8', '20 sent', 'preprocess', 'camera->mask', 'target'):
        assert said in output
    report = json.loads(out.read_text(), parse_constant=pytest.fail)  # no NaN
    assert report['sent'] == 20 and report['sent_hz'] == pytest.approx(20, rel=0.2)
    assert 0 < report['answered'] <= report['received'] <= 20 and report['lost'] == 20 - report['answered']
    assert {'convert', 'preprocess', 'postprocess', 'rest'} <= set(report['steps_ms'])
    assert 0 < report['node_ms']['p50'] < report['camera_to_mask_ms']['p50']
    assert report['cpu_percent'] > 0 and report['others_percent'] >= 0
    assert report['resident_mib'] > 50 and report['threads'] > 1


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (['--size', '0', '5'], 'size: expected a height and width of at least 1, got (0, 5)'),
        (['--rate', '0'], 'rate: expected more than 0'),
        (['--duration', '0.01'], 'duration: expected time for 2 frames, got 0.01 s at 30.0 Hz'),
        (['--param', 'device'], "param: expected NAME:=VALUE, got 'device'"),
    ],
)
def test_it_says_what_it_expects(arguments, complaint, capsys):
    assert cli.main(['node-overhead', *arguments]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({}, ''),
        ({'node_ms': Milliseconds(TARGET_P50_MS, 30.0)}, ''),
        ({'node_ms': Milliseconds(5.1, 5.1)}, 'p50 in the node above 5 ms'),
        ({'answered': 598}, '2 of 600 frames lost'),
        ({'answered': 0, 'node_ms': None}, '600 of 600 frames lost'),
    ],
)
def test_the_target(changes, problem):
    report = dataclasses.replace(REPORT, **changes)
    assert report.problem == problem
    assert (problem or 'kept') in str(report)


def test_the_idle_backend_repeats_what_the_network_made_of_a_street(model):
    spec = ModelSpec.load(model)
    point = spec.network_size_hw, spec.variant, spec.budget
    street = street_scene(spec.network_size_hw)[None]
    network = create_backend('pytorch', spec, 'cpu', 'float32')
    expected = network.infer(street, spec.variant, spec.budget)[0]
    idle = IdleBackend(network)
    with pytest.raises(RuntimeError, match='warm_up has not run'):
        idle.infer(street, spec.variant, spec.budget)
    for _ in range(2):  # a second time there is no network any more
        idle.warm_up(*point)
    with pytest.raises(RuntimeError, match='closed'):
        network.infer(street, spec.variant, spec.budget)
    answers = idle.infer(np.zeros((3, *spec.network_size_hw, 3), np.uint8), spec.variant, spec.budget)
    assert len(answers) == 3
    for answer in answers:
        assert np.array_equal(answer.scores, expected.scores) and answer.tokens.stages == expected.tokens.stages
    with pytest.raises(ValueError, match='expected RGB images'):
        idle.infer(np.zeros((3, 4), np.uint8), spec.variant, tiny_spec().budget)
