"""A table of operating points comes back as it was written; one that is of no use for the model is refused."""

import dataclasses
import subprocess
import sys

import pytest
import yaml
from tiny_model import tiny_spec

from hybrid_seg_ros.inference.points_table import (
    PointsSource,
    default_points_path,
    format_operating_points,
    load_operating_points,
    make_point,
    name_point,
)
from hybrid_seg_ros.model_spec import TokenBudget, Variant

SPEC = tiny_spec(sha256='a' * 64, window_sizes=(2, 4),
                 budget=TokenBudget(merged_windows=0.4, threshold=0.3, keep_per_class=2))  # fmt: skip
SOURCE = PointsSource('tiny', 'a' * 64, 'camvid', 'val', 2, 'whole', 'pytorch', 'float32')
TOKENS = {'total': 48, 'merged': 33.0}


def point(variant, miou, gflops, tokens=TOKENS, **budget):
    budget = dataclasses.replace(SPEC.budget, **budget)
    return make_point(SPEC, Variant.parse(variant), budget, miou, gflops, tokens)


POINTS = (
    point('hybrid@6+8', 60.5, 1.0, {**TOKENS, 'kept@6': 10, 'kept@8': 5.5}, keep=(0.5, 3), merged_windows=0.75),
    point('hybrid@8', 61.0, 1.5, {**TOKENS, 'kept@8': 16}, keep=0.5, merged_windows=10),
    point('hybrid@8', 62.0, 2.0, {**TOKENS, 'kept@8': 16}, threshold=0.9),
    point('cts', 62.5, 2.5, merged_windows={4: 1, 2: 3}),
    point('cts', 63.0, 3.0, merged_windows=0.5),
    point('dtop@8', 64.0, 4.0, {**TOKENS, 'kept@8': 1}, keep=1),
    point('dense', 65.0, 5.0),
)


@pytest.fixture
def table(tmp_path):
    """Write a table, whose YAML content a function may have changed; return its path."""

    def write(change=lambda content: None):
        content = yaml.safe_load(format_operating_points(SOURCE, POINTS))
        path = tmp_path / 'tiny.points.yaml'
        path.write_text(yaml.safe_dump(change(content) or content))
        return path

    return write


def test_comes_back_as_written(tmp_path):
    path = tmp_path / 'tiny.points.yaml'
    path.write_text(format_operating_points(SOURCE, POINTS))
    points = load_operating_points(path, SPEC)
    assert points == POINTS
    assert [each.name for each in points] == [
        'hybrid@6+8 keep 0.5+3 merged 0.75', 'hybrid@8 keep 0.5 merged 10', 'hybrid@8 threshold 0.9 merged 0.4',
        'cts merged 4:1,2:3', 'cts merged 0.5', 'dtop@8 keep 1', 'dense',
    ]  # fmt: skip
    assert points[1].budget == TokenBudget(merged_windows=10, threshold=0.3, keep_per_class=2, keep=(0.5,))
    assert points[2].budget == TokenBudget(merged_windows=0.4, threshold=0.9, keep_per_class=2, keep=None)


def test_a_name_has_only_what_decides():
    budget = TokenBudget(0.5, keep=(0.4, 0.05))
    assert name_point(Variant.parse('hybrid@8'), budget) == 'hybrid@8 keep 0.4 merged 0.5'
    assert name_point(Variant.parse('dtop@6+8'), budget) == 'dtop@6+8 keep 0.4+0.05'


def test_a_count_of_one_is_not_a_share_of_one():
    names = {name_point(Variant.parse('dtop@8'), TokenBudget(keep=keep)) for keep in (1, 1.0)}
    assert names == {'dtop@8 keep 1', 'dtop@8 keep 1.0'}


def entry(**changes):
    """Change the second point, which is `hybrid@8 keep 0.5 merged 10`; None takes a key away."""

    def change(content):
        content['points'][1].update(changes)
        content['points'][1] = {name: value for name, value in content['points'][1].items() if value is not None}

    return change


@pytest.mark.parametrize(
    'change, complaint',
    [
        (lambda content: [content], 'expected a mapping with version: 1, got list'),
        (lambda content: {**content, 'version': 2}, 'expected a mapping with version: 1, got 2'),
        (lambda content: {**content, 'speed': 2}, 'unknown: speed, missing: none'),
        (lambda content: {**content, 'split': None}, 'unknown: none, missing: split'),
        (lambda content: {**content, 'weights_sha256': 'b' * 64}, 'expected that of the model, aaa.*again'),
        (lambda content: {**content, 'model': 'other'}, 'model: expected that of the model, tiny, got other'),
        (lambda content: {**content, 'inference': 'sliding'}, 'expected that of the model, whole, got sliding'),
        (lambda content: {**content, 'points': []}, 'expected at least one, got none'),
        (lambda content: {**content, 'points': {}}, 'points: expected a list, got {}'),
        (lambda content: {**content, 'points': ['dense']}, "a mapping with a variant for each, got 'dense'"),
        (lambda content: {**content, 'points': content['points'][::-1]}, 'from the cheapest to the dearest, got 5'),
        (lambda content: {**content, 'points': content['points'][:1] * 2}, 'from the cheapest to the dearest'),
        (entry(miou=60.5), r'hybrid@8 keep 0.5 merged 10 \(60.5 %\) is dearer than .* and not more accurate'),
        (entry(miou=62.0), r'threshold 0.9 merged 0.4 \(62 %\) is dearer than .* and not more accurate'),
        (entry(variant='hybrid@7'), 'no auxiliary head after layer 7'),
        (entry(variant='cts'), 'unknown: keep, missing: none'),
        (entry(keep=None), 'unknown: none, missing: threshold'),
        (entry(threshold=0.9), 'unknown: threshold, missing: none'),
        (entry(keep=0.0), r'a fraction in \(0, 1\], got 0.0'),
        (entry(keep='half'), 'a fraction'),
        (entry(variant='hybrid@6+8', keep=[0.5], tokens={**TOKENS, 'kept@8': 3}), 'tokens: expected .*kept@6, kept@8'),
        (entry(merged_windows=13), r'at most 12 of 2x2 for a \(6, 8\) grid, got 13'),
        (entry(merged_windows=None), 'missing: merged_windows'),
        (entry(tokens={**TOKENS, 'total': 64, 'kept@8': 3}), 'expected 48 tokens in total, .*got 64.*again'),
        (entry(tokens=[48, 33, 16]), 'tokens: expected a count for each stage'),
        (entry(tokens={**TOKENS, 'kept@8': 'few'}), "counts of tokens, got {'kept@8': 'few'}"),
        (entry(miou='61'), "expected miou in per cent.*got {'miou': '61'}"),
        (entry(miou=161), 'expected miou in per cent'),
        (entry(miou=float('nan')), 'expected miou in per cent'),
        (entry(gflops=0), 'gflops > 0'),
    ],
)  # fmt: skip
def test_what_is_no_table_of_the_model(table, change, complaint):
    path = table(change)
    with pytest.raises(ValueError, match=f'(?s)operating points .*tiny.points.yaml: .*{complaint}'):
        load_operating_points(path, SPEC)


def test_no_file_and_no_yaml(tmp_path):
    path = tmp_path / 'tiny.points.yaml'
    with pytest.raises(FileNotFoundError, match='no such file; make one with `hybrid_seg sweep` and'):
        load_operating_points(path, SPEC)
    path.write_text('points: [')
    with pytest.raises(ValueError, match='tiny.points.yaml'):
        load_operating_points(path, SPEC)


def test_points_out_of_order_are_not_written():
    with pytest.raises(ValueError, match='from the cheapest to the dearest'):
        format_operating_points(SOURCE, POINTS[::-1])


@pytest.mark.parametrize('model', ['models/tiny.v2.yaml', 'models/tiny.v2.yml'])
def test_lies_beside_the_model(tmp_path, model):
    assert default_points_path(tmp_path / model) == tmp_path / 'models' / 'tiny.v2.points.yaml'


def test_needs_no_torch():
    code = 'import sys; import hybrid_seg_ros.inference.points_table; assert "torch" not in sys.modules'
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
