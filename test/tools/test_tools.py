"""Each tool as its user runs it, once, with a tiny model and few frames; and how frames and samples become figures."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import re
from pathlib import Path

import cv2
import fit_class_bias
import numpy as np
import pytest
import soak
import torch
from budget_report import FrameSeen, judge_phase, point_of, tokens_per_layer
from camvid_folder import write_camvid_folder
from command_process import ROOT, command_process, wait_for_line
from idle_node import IdleBackend
from node_overhead import TARGET_P50_MS, Milliseconds, OverheadReport
from pages import COMMANDS
from played_camera import PlayedFrame
from process_figures import process_figures
from soak_report import NodeSample, SoakReport, draw_soak
from tiny_model import tiny_spec, write_lively_model, write_tiny_model, write_tiny_points
from tool import run_tool

from hybrid_seg_ros.data.image_files import read_image
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.inference.backends import create_backend
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model, save_model

TIMEOUT_S = 60.0
QUICK = ('--param', 'num_threads:=1', '--param', 'backend:=pytorch')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    model = write_tiny_model(tmp_path_factory.mktemp('model'))
    write_tiny_points(model)
    return model


def run(name, *arguments):
    """Run a tool in a process of its own; return what it printed."""
    with command_process(*arguments, program=[str(ROOT / 'tools' / f'{name}.py')]) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    return output


def test_soak(model, tmp_path):
    picture, out = tmp_path / 'soak.png', tmp_path / 'new' / 'soak.json'
    output = run('soak', '--model', model, '--json', out, '--frames', 40, '--picture', picture, *QUICK)
    for said in ('40 frames', 'tiny, hybrid@6+8, pytorch', '40 of 40 sent', 'MiB in 1000 frames', 'verdict   flat'):
        assert said in output
    report = json.loads(out.read_text())
    assert (report['sent'], report['verdict'], report['ended']) == (40, 'flat', '')
    assert [sample['frames'] for sample in report['samples']] == list(range(1, 41))
    assert all(sample['resident_mib'] > 50 and sample['open_files'] > 3 for sample in report['samples'])
    assert cv2.imread(str(picture)).shape == (800, 1200, 3)


def test_node_overhead(model, tmp_path):
    out = tmp_path / 'overhead.json'
    size = ('--size', 120, 160, '--rate', 20, '--duration', 1)
    output = run('node_overhead', '--model', model, *size, '--json', out, *QUICK)
    for said in ('tiny, hybrid@6+8, idle pytorch', '160x120 rgb8', '20 sent', 'preprocess', 'camera->mask', 'target'):
        assert said in output
    report = json.loads(out.read_text(), parse_constant=pytest.fail)  # no NaN
    assert report['sent'] == 20 and report['sent_hz'] == pytest.approx(20, rel=0.2)
    assert 0 < report['answered'] <= report['received'] <= 20 and report['lost'] == 20 - report['answered']
    assert {'convert', 'preprocess', 'postprocess', 'rest'} <= set(report['steps_ms'])
    assert 0 < report['node_ms']['p50'] < report['camera_to_mask_ms']['p50']
    assert report['cpu_percent'] > 0 and report['others_percent'] >= 0
    assert report['resident_mib'] > 50 and report['threads'] > 1


def test_demo_budget(model, tmp_path):
    output = run(
        'demo_budget', '--model', model, '--output', tmp_path, '--limit', 4, '--target', 2000, '--phase', 0.5,
        '--rate', 8, '--busy', 1, '--backend', 'pytorch', '--param', 'num_threads:=1',
    )  # fmt: skip
    assert '2000 ms' in output and 'loaded: 1 busy process on' in output
    report = json.loads((tmp_path / 'report.json').read_text())
    budget, fixed = report['runs']
    for each in (budget, fixed):
        assert [phase['name'] for phase in each['phases']] == ['idle', 'loaded', 'idle']
        for phase in each['phases']:
            assert phase['sent'] == 4 and 0 < phase['answered'] <= 4
            assert 0 < phase['p50_ms'] <= phase['p95_ms'] and 0 <= phase['miou'] <= 100
            assert f'{phase["p50_ms"]:.0f}' in output
        assert len(each['frames']) == sum(phase['answered'] for phase in each['phases'])
    assert {frame['point'] for frame in fixed['frames']} == {2} and fixed['phases'][0]['table_miou'] == 70.0
    assert {frame['tokens'] for frame in fixed['frames']} == {48.0}
    assert report['points'][2] == 'dense' and 'dense' in (tmp_path / 'fixed.points.yaml').read_text()
    assert cv2.imread(str(tmp_path / 'budget.png')).shape == (1280, 1600, 3)


def test_demo_cameras(model, tmp_path):
    frames = 3
    output = run(
        'demo_cameras', '--model', model, '--output', tmp_path, '--phase', frames / 8, '--rate', 8, '--limit', 4,
        '--backend', 'pytorch', '--param', 'num_threads:=1',
    )  # fmt: skip
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
            assert row['sent'] == frames and 0 < row['answered'] <= frames and 0 <= row['miou'] <= 100
    for said in ('silent', 'turns', 'batch', 'front and rear, 8 Hz each'):
        assert said in output
    sheet = cv2.imread(str(tmp_path / 'cameras.png'))
    assert sheet.shape[0] > 1500 and sheet.std() > 20


def test_time_parts(tmp_path):
    """Of models of one name, with a refinement and without, which are told apart by their files."""
    models = [tmp_path / 'refined.yaml', tmp_path / 'plain.yaml']
    tiny_spec(refinement='image').save(models[0])
    tiny_spec(policy='patch_mlp', auxiliary_layers=(), variant=Variant()).save(models[1])
    out = tmp_path / 'parts.json'
    output = run('time_parts', *models, '--variants', 'dense', 'cts', '--rounds', 1, '--json', out)
    table = json.loads(out.read_text())
    both = {'policy', *(f'{part}, {count} tokens' for part in ('embedding', 'block', 'head') for count in (48, 33)),
            'whole network, dense', 'whole network, cts'}  # fmt: skip
    assert list(table) == list(map(str, models))
    assert set(table[str(models[0])]) == {'refinement', *both}
    assert set(table[str(models[1])]) == both
    assert all(milliseconds > 0 for row in table.values() for milliseconds in row.values())
    assert 'median of 1 interleaved rounds' in output and all(part in output for part in both)


def test_fit_class_bias_undoes_a_shift(tmp_path, capsys):
    """Labels are what a model says; a copy of it that claims too much for one class is brought back to them."""
    path = write_lively_model(tmp_path, refinement='image', head='light', auxiliary_head='light')
    root = write_camvid_folder(tmp_path / 'camvid', train=1, val=2)
    pipeline = load_pipeline(path, backend='pytorch', variant='dense')
    said = {file: pipeline(read_image(file)).labels for file in root.glob('*/images/*')}
    for file, labels in said.items():
        cv2.imwrite(str(file.parents[1] / 'labels' / file.name), labels)
    model = load_model(ModelSpec.load(path))
    rarest = np.bincount(np.stack([*said.values()]).ravel(), minlength=11).nonzero()[0][-1]
    with torch.no_grad():
        model.refinement.output.bias[rarest] += 2.0
    save_model(model, tmp_path / 'shifted.yaml')
    out = tmp_path / 'new.yaml'
    for wrong in (tmp_path / 'shifted.yaml', tmp_path / 'new.safetensors'):
        words = ['--model', str(tmp_path / 'shifted.yaml'), '--root', str(root), '--output', str(wrong)]
        assert run_tool(fit_class_bias, words) == 1
        assert '--output: expected a name that ends in .yaml, other than --model' in capsys.readouterr().err
    output = run('fit_class_bias', '--model', tmp_path / 'shifted.yaml', '--root', root, '--output', out)
    before, after = (float(number) for number in re.search(r'val: mIoU ([\d.]+) -> ([\d.]+)', output).groups())
    assert before < 75 and after > 85 and ModelSpec.load(out).sha256 in output
    again = load_pipeline(out, backend='pytorch', variant='dense')
    assert all((again(read_image(file)).labels == labels).mean() > 0.97 for file, labels in said.items())


def test_a_node_that_does_not_start_and_a_bag_that_is_not_there(model, capsys):
    assert run_tool(soak, ['--model', str(model), '--param', 'overlay_alpha:=7.0']) == 1
    said = capsys.readouterr().err
    assert 'segmentation_node ended with status 1' in said and 'overlay_alpha out of range' in said
    assert run_tool(soak, ['--bag', 'absent']) == 1
    assert capsys.readouterr().err == 'soak.py: bag absent: no such file or folder\n'


def test_commands_of_the_pages_can_be_parsed(monkeypatch, capsys):
    found = [c for c in COMMANDS if c.words[0] == 'python' and c.words[1].startswith('tools/')]
    assert len(found) > 5
    for command in found:
        tool = importlib.import_module(Path(command.words[1]).stem)
        monkeypatch.setattr(tool, 'run', lambda args: 7)
        assert run_tool(tool, command.words[2:]) == 7, f'{command}: {capsys.readouterr().err}'


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
def test_the_target_of_the_overhead(changes, problem):
    report = OverheadReport(
        machine='a board', model='tiny', image_hw=(720, 1280), rate_hz=30.0, sent_hz=29.9, mask_size='network',
        shared_memory=True, sent=600, received=600, answered=600, node_ms=Milliseconds(4.0, 5.0), steps_ms={},
        camera_to_mask_ms=None, cpu_percent=20.0, others_percent=0.0, resident_mib=300.0, threads=9,
    )  # fmt: skip
    report = dataclasses.replace(report, **changes)
    assert report.problem == problem
    assert (problem or 'kept') in str(report)


def test_the_idle_backend_repeats_what_the_network_made_of_a_street(model):
    spec = ModelSpec.load(model)
    point = spec.network_size_hw, spec.variant, spec.budget
    street = street_scene(spec.network_size_hw)[None]
    network = create_backend('pytorch', spec, 'cpu', 'float32')
    expected = network.infer(street, spec.variant, spec.budget)[0]
    idle = IdleBackend(network)
    for _ in range(2):  # a second time there is no network any more
        idle.warm_up(*point)
    with pytest.raises(RuntimeError, match='closed'):
        network.infer(street, spec.variant, spec.budget)
    for answer in idle.infer(np.zeros((3, *spec.network_size_hw, 3), np.uint8), spec.variant, spec.budget):
        assert np.array_equal(answer.scores, expected.scores) and answer.tokens.stages == expected.tokens.stages


def test_process_figures():
    with command_process('import time; print("up", flush=True); time.sleep(60)', program=['-c']) as child:
        wait_for_line(child, 'up')
        figures = process_figures(child.pid)
        assert figures.resident_mib >= figures.anonymous_mib > 1 and figures.shared_mib >= 0
        assert figures.threads == 1 and figures.open_files >= 3 and figures.cpu_s >= 0
        child.kill()
        child.communicate()
        with pytest.raises(OSError):
            process_figures(child.pid)


def report_of(samples, **fields):
    return SoakReport('a board', 'tiny', 'a bag', **{
        'frames': 1000, 'max_growth_mib': 16.0, 'sent': 1000, 'samples': tuple(samples), **fields,
    })  # fmt: skip


def samples_of(memory_mib, step=10, latency_ms=20.0):
    """Return a sample every `step` frames, of a node that has memory_mib(frames)."""
    return [
        NodeSample(memory_mib(frames), memory_mib(frames) / 2, 17.0, 20, 30, frames / 100, frames, frames / 50, 0,
                   latency_ms, 2 * latency_ms)
        for frames in range(step, 1001, step)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('memory_mib', 'verdict', 'growth', 'slope'),
    [
        (lambda frames: 200.0 if frames <= 50 else 300.0, 'flat', 0.0, 0.0),  # the warm-up does not count
        (lambda frames: 300.0 + frames / 100, 'flat', 8.5, 10.0),
        (lambda frames: 300.0 + frames / 50, 'grows', 17.0, 20.0),
        (lambda frames: 300.0 - frames / 100, 'flat', -8.5, -10.0),
    ],
)
def test_the_verdict_of_a_soak(memory_mib, verdict, growth, slope):
    report = report_of(samples_of(memory_mib))
    assert report.verdict == verdict and f'verdict   {verdict}' in str(report)
    assert report.change().growth == pytest.approx(growth) and report.slope_mib == pytest.approx(slope, abs=1e-6)


def test_a_soak_too_short_to_tell_and_one_without_answers(tmp_path):
    for samples in ([], samples_of(lambda frames: 300.0, step=1000)):
        report = report_of(samples, ended='interrupted')
        assert report.verdict == 'too short' and report.to_dict()['growth_mib'] is None
        assert 'interrupted' in str(report)
        draw_soak(report, tmp_path / 'soak.png')
    draw_soak(report_of(samples_of(lambda frames: 300.0, latency_ms=math.nan)), tmp_path / 'soak.png')
    assert cv2.imread(str(tmp_path / 'soak.png')).std() > 5


@pytest.fixture(scope='module')
def points(model):
    from hybrid_seg_ros.inference.points_table import default_points_path, load_operating_points

    return load_operating_points(default_points_path(model), ModelSpec.load(model))


def test_which_point_ran_is_known_by_its_tokens(points):
    for index, point in enumerate(points):
        assert point_of({stage: round(count) for stage, count in point.tokens.items()}, points) == index
    with pytest.raises(ValueError, match='no operating point has the stages total, merged, kept@6'):
        point_of({'total': 48, 'merged': 33, 'kept@6': 20}, points)


@pytest.mark.parametrize(
    ('tokens', 'mean'),
    [
        ({'total': 48, 'merged': 48}, 48),
        ({'total': 48, 'merged': 36, 'kept@6': 24, 'kept@8': 12}, (36 * 6 + 24 * 2 + 12 * 4) / 12),
    ],
)
def test_tokens_per_layer(tokens, mean):
    assert tokens_per_layer(tokens, 12) == pytest.approx(mean)


def test_a_phase_counts_what_was_answered_and_judges_what_came_after_a_second(points):
    latencies = {0.0: 500.0, 0.5: None, 1.5: 80.0, 2.0: 90.0}
    played = [PlayedFrame(0, 0, sent_s, latency_ms) for sent_s, latency_ms in latencies.items()]
    seen = [FrameSeen(0.0, 500.0, 48.0, 2), FrameSeen(1.5, 80.0, 30.0, 0), FrameSeen(2.0, 90.0, 30.0, 0)]
    phase = judge_phase('idle', 0.0, 4.0, played, seen, 100.0, points, [70.0, 85.0])
    assert (phase.sent, phase.answered, phase.fps, phase.changes) == (4, 3, 0.75, 1)
    assert phase.node_p95_ms == 85 and phase.p50_ms == 90
    assert phase.p95_ms > 400 and phase.p95_settled_ms == pytest.approx(89.5)
    assert phase.within == pytest.approx(2 / 3) and phase.tokens == pytest.approx(36)
    assert phase.table_miou == pytest.approx((70 + 60 + 60) / 3) and phase.miou is None
    with pytest.raises(ValueError, match="no masks came in the phase 'idle', for 4 frames"):
        judge_phase('idle', 0.0, 4.0, played, [], 100.0, points, [])
