"""`time-parts`: every part of every model is timed, whatever the model has."""

import json

import pytest
from tiny_model import tiny_spec

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.model_spec import Variant

WHOLE = ['whole network, dense', 'whole network, cts']


@pytest.fixture
def models(tmp_path):
    """Two specs, without weights: with a trunk and a refinement, and with neither."""
    paths = [tmp_path / 'with_trunk.yaml', tmp_path / 'plain.yaml']
    tiny_spec(name='with trunk', refinement='trunk').save(paths[0])
    tiny_spec(name='plain', stem='patch', policy='patch_mlp', auxiliary_layers=(), variant=Variant()).save(paths[1])
    return [str(path) for path in paths]


def test_every_part_of_two_models(models, tmp_path, capsys):
    out = tmp_path / 'parts.json'
    assert main(['time-parts', *models, '--variants', 'dense', 'cts', '--rounds', '1', '--json', str(out)]) == 0
    table = json.loads(out.read_text())
    assert list(table) == ['with trunk', 'plain']
    blocks = ['block, 48 tokens', 'block, 33 tokens']
    assert set(table['with trunk']) == {'trunk', 'policy', *blocks, 'auxiliary head, 33 tokens', 'refinement', *WHOLE}
    assert set(table['plain']) == {'policy', *blocks, *WHOLE}
    assert all(milliseconds > 0 for row in table.values() for milliseconds in row.values())
    printed = capsys.readouterr().out
    assert 'median of 1 interleaved rounds' in printed and all(part in printed for part in table['with trunk'])


def test_models_of_one_name_are_told_apart_by_their_files(models, tmp_path):
    out = tmp_path / 'parts.json'
    tiny_spec(name='with trunk', auxiliary_layers=(), variant=Variant()).save(models[1])
    assert main(['time-parts', *models, '--variants', 'dense', '--rounds', '1', '--json', str(out)]) == 0
    assert list(json.loads(out.read_text())) == models


@pytest.mark.parametrize('rounds', ['0', '-3'])
def test_rounds_are_at_least_one(models, capsys, rounds):
    assert main(['time-parts', models[0], '--rounds', rounds]) == 1
    assert f'--rounds: expected at least 1, got {rounds}' in capsys.readouterr().err


def test_a_variant_that_a_model_cannot_run(models, capsys):
    assert main(['time-parts', models[1], '--variants', 'hybrid@8', '--rounds', '1']) == 1
    assert 'legal for plain are dense, cts' in capsys.readouterr().err
