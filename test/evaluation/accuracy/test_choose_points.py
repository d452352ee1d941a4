"""From a sweep come a few points along its Pareto front, as a table that loads, if it is a sweep of the model."""

import dataclasses
import json

import pytest
from tiny_model import tiny_spec

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.evaluation.accuracy.choose_points import choose_points, pareto_front, spread_evenly
from hybrid_seg_ros.evaluation.accuracy.sweep_results import Sweep, SweepPoint, SweepRow, SweepSubject
from hybrid_seg_ros.inference.points_table import OperatingPoint, load_operating_points
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant

SPEC = tiny_spec()


def subject_of(sha256='a' * 64, **changes):
    subject = SweepSubject('tiny', sha256, 'camvid', 'val', 2, 'b' * 64, 'whole', 5, 'pytorch', 'cpu', 'float32')
    return dataclasses.replace(subject, **changes)


def sweep_of(rows, subject):
    """Make a sweep of (variant, rule, value, merged windows, mIoU, GFLOPs)."""
    sweep = Sweep(subject, SweepPoint('dense'))
    for *point, miou, gflops in rows:
        layers = Variant.parse(point[0]).prune_layers
        tokens = {'total': 48.0, 'merged': 33.0, **{f'kept@{layer}': 16.0 for layer in layers}}
        sweep = sweep.with_row(SweepRow(SweepPoint(*point), miou, 90.0, {}, tokens, gflops, 0.5))
    return sweep


ROWS = [
    ('dense', None, None, None, 69.0, 9.0),
    ('cts', None, None, 0.6, 70.0, 5.0),
    ('cts', None, None, 0.5, 70.0, 6.0),
    ('dtop@8', 'keep', 0.5, None, 68.0, 7.0),
    ('hybrid@8', 'keep', 0.5, 0.6, 65.0, 3.0),
    ('hybrid@8', 'keep', 8, 0.6, 64.0, 2.0),
    ('hybrid@8', 'threshold', 0.9, 0.6, 71.0, 1.0),
    ('hybrid@6+8', 'keep', 0.5, 1.0, 60.0, 1.5),
]  # fmt: skip
FRONT = ['hybrid@6+8 keep 0.5 merged 1.0', 'hybrid@8 keep 8 merged 0.6', 'hybrid@8 keep 0.5 merged 0.6',
         'cts merged 0.6']  # fmt: skip


@pytest.mark.parametrize(
    'count, min_miou, expected',
    [
        (6, 0, FRONT),
        (4, 60, FRONT),
        (3, 0, [FRONT[0], FRONT[2], FRONT[3]]),
        (2, 0, [FRONT[0], FRONT[3]]),
        (4, 60.1, FRONT[1:]),
        (2, 64.5, FRONT[2:]),
        (6, 70, FRONT[3:]),
    ],
)
def test_chosen(count, min_miou, expected):
    """What costs more and is no better is not among them, nor is what prunes by threshold."""
    points = choose_points(sweep_of(ROWS, subject_of()), SPEC, count, min_miou)
    assert [point.name for point in points] == expected
    assert [(point.miou, point.gflops) for point in points][-1] == (70.0, 5.0)


def test_budget_is_complete():
    spec = tiny_spec(budget=TokenBudget(threshold=0.7, keep_per_class=2))
    first, *_ = choose_points(sweep_of(ROWS, subject_of()), spec, 2)
    assert first.budget == TokenBudget(merged_windows=1.0, threshold=0.7, keep_per_class=2, keep=(0.5,))
    assert first.tokens == {'total': 48, 'merged': 33, 'kept@6': 16, 'kept@8': 16}


@pytest.mark.parametrize(
    'rows, options, complaint',
    [
        (ROWS, {'count': 1}, 'at least 2 points, the cheapest and the most accurate, got 1'),
        (ROWS, {'min_miou': 71}, 'at least 71 % mIoU, got 7 with a fixed number, the best with 70 %'),
        ([ROWS[6]], {}, 'got 0 with a fixed number'),
        ([], {}, 'got 0 with a fixed number'),
        ([('hybrid@7', 'keep', 0.5, 0.6, 65.0, 3.0)], {}, 'no auxiliary head after layer 7'),
        ([('cts', None, None, 13, 65.0, 3.0)], {}, 'merged_windows: expected at most 12'),
    ],
)
def test_what_cannot_be_chosen(rows, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        choose_points(sweep_of(rows, subject_of()), SPEC, **{'count': 6, **options})


def points_at(*costs):
    return [OperatingPoint(f'{miou}', Variant(), TokenBudget(), miou, gflops, {}) for miou, gflops in costs]


@pytest.mark.parametrize(
    'costs, front',
    [
        ([(60, 1)], [60]),
        ([(60, 1), (61, 2), (62, 3)], [60, 61, 62]),
        ([(62, 3), (60, 1), (61, 2)], [60, 61, 62]),
        ([(60, 1), (60, 2)], [60]),
        ([(60, 1), (61, 1)], [61]),
        ([(60, 2), (61, 1), (59, 0.5), (61.5, 3), (61.4, 4)], [59, 61, 61.5]),
    ],
)
def test_pareto_front(costs, front):
    assert [point.miou for point in pareto_front(points_at(*costs))] == front


@pytest.mark.parametrize(
    'gflops, count, chosen',
    [
        ([1, 2, 3, 4, 5], 3, [1, 3, 5]),
        ([1, 1.1, 1.2, 3, 5], 3, [1, 3, 5]),
        ([1, 1.15, 1.2, 1.3, 9], 4, [1, 1.15, 1.3, 9]),  # 9 - 1.3 is the least that the largest gap can be
        ([1, 4.9, 5], 3, [1, 4.9, 5]),
        ([1, 2, 3, 4, 5, 6, 7], 4, [1, 3, 5, 7]),
        ([1, 2], 6, [1, 2]),
        ([1], 2, [1]),
    ],
)
def test_spread(gflops, count, chosen):
    points = points_at(*((60 + place, cost) for place, cost in enumerate(gflops)))
    assert [point.gflops for point in spread_evenly(points, count)] == chosen


@pytest.fixture
def sweep_path(tiny_model, tmp_path):
    """Write a sweep of the tiny model's weights, with changes to its subject; return its path."""

    def write(**changes):
        path = tmp_path / 'sweep.json'
        sweep_of(ROWS, subject_of(ModelSpec.load(tiny_model).with_weights_hash().sha256, **changes)).save_json(path)
        return path

    return write


def test_command_writes_a_table_that_loads(tiny_model, sweep_path, tmp_path, capsys):
    output = tmp_path / 'out' / 'points.yaml'
    command = ['choose-points', str(sweep_path()), '--model', str(tiny_model), '--output', str(output)]
    assert main([*command, '--count', '3']) == 0
    points = load_operating_points(output, ModelSpec.load(tiny_model))
    assert [point.name for point in points] == [FRONT[0], FRONT[2], FRONT[3]]
    printed = capsys.readouterr().out
    assert '| hybrid@8 keep 0.5 merged 0.6 | 65.00 | 3.00 | 60 % | 33 → 16 |' in printed and str(output) in printed
    assert main([*command, '--min-miou', '64.5']) == 0
    assert '2 points instead of 6' in capsys.readouterr().out
    assert len(load_operating_points(output, ModelSpec.load(tiny_model))) == 2
    assert [path.name for path in output.parent.iterdir()] == ['points.yaml']


def test_table_lies_beside_the_model(tiny_model, sweep_path, tmp_path):
    model = tmp_path / 'm.yaml'
    spec = dataclasses.replace(ModelSpec.load(tiny_model), weights=str(ModelSpec.load(tiny_model).weights_path))
    spec.save(model)
    assert main(['choose-points', str(sweep_path()), '--model', str(model)]) == 0
    assert len(load_operating_points(tmp_path / 'm.points.yaml', spec)) == 4


@pytest.mark.parametrize(
    'changes, options, complaint',
    [
        ({'model': 'other'}, [], 'model: expected that of the model, tiny, got other'),
        ({'model_sha256': 'c' * 64}, [], 'the points must be measured again'),
        ({'inference': 'sliding', 'backend': 'openvino'}, [], None),
        ({}, ['--min-miou', '90'], 'at least 90 % mIoU'),
        ({}, ['--count', '0'], 'expected at least 2 points'),
    ],
)
def test_sweep_of_another_model(tiny_model, sweep_path, tmp_path, capsys, changes, options, complaint):
    """One of another kind of inference is used: the table says of which, and loads for no other."""
    output = tmp_path / 'points.yaml'
    output.write_text('before')
    command = ['choose-points', str(sweep_path(**changes)), '--model', str(tiny_model), '--output', str(output)]
    assert main([*command, *options]) == (complaint is not None)
    if complaint is None:
        with pytest.raises(ValueError, match='inference: expected that of the model, whole, got sliding'):
            load_operating_points(output, ModelSpec.load(tiny_model))
        return
    assert complaint in capsys.readouterr().err
    assert output.read_text() == 'before'


@pytest.mark.parametrize('content', ['[]', json.dumps({'rows': []}), 'no JSON'])
def test_no_sweep(tiny_model, tmp_path, capsys, content):
    path = tmp_path / 'sweep.json'
    assert main(['choose-points', str(path), '--model', str(tiny_model)]) == 1
    assert 'No such file' in capsys.readouterr().err
    path.write_text(content)
    assert main(['choose-points', str(path), '--model', str(tiny_model)]) == 1
    assert 'expected what a sweep writes' in capsys.readouterr().err
    assert not (tiny_model.parent / 'tiny.points.yaml').exists()
