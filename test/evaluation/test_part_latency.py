"""`time-parts`: every part of every model is timed, whatever the model has."""

import json

import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.evaluation.part_latency import WHOLE_NETWORK, encoder_stages, parts_of, sum_parts
from hybrid_seg_ros.model_spec import Backbone, TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter

WHOLE = ['whole network, dense', 'whole network, cts']


@pytest.fixture
def models(tmp_path):
    """Two specs, without weights: with a refinement and without."""
    paths = [tmp_path / 'refined.yaml', tmp_path / 'plain.yaml']
    tiny_spec(name='refined', refinement='image').save(paths[0])
    tiny_spec(name='plain', policy='patch_mlp', auxiliary_layers=(), variant=Variant()).save(paths[1])
    return [str(path) for path in paths]


def test_every_part_of_two_models(models, tmp_path, capsys):
    out = tmp_path / 'parts.json'
    assert main(['time-parts', *models, '--variants', 'dense', 'cts', '--rounds', '1', '--json', str(out)]) == 0
    table = json.loads(out.read_text())
    assert list(table) == ['refined', 'plain']
    both = ['embedding', 'policy', 'block, 48 tokens', 'block, 33 tokens', 'head, 48 tokens', 'head, 33 tokens', *WHOLE]
    assert set(table['refined']) == {'auxiliary head, 33 tokens', 'refinement', *both}
    assert set(table['plain']) == set(both)
    assert all(milliseconds > 0 for row in table.values() for milliseconds in row.values())
    printed = capsys.readouterr().out
    assert 'median of 1 interleaved rounds' in printed and all(part in printed for part in table['refined'])


def test_models_of_one_name_are_told_apart_by_their_files(models, tmp_path):
    out = tmp_path / 'parts.json'
    tiny_spec(name='refined', auxiliary_layers=(), variant=Variant()).save(models[1])
    assert main(['time-parts', *models, '--variants', 'dense', '--rounds', '1', '--json', str(out)]) == 0
    assert list(json.loads(out.read_text())) == models


@pytest.mark.parametrize('rounds', ['0', '-3'])
def test_rounds_are_at_least_one(models, capsys, rounds):
    assert main(['time-parts', models[0], '--rounds', rounds]) == 1
    assert f'--rounds: expected at least 1, got {rounds}' in capsys.readouterr().err


def test_a_variant_that_a_model_cannot_run(models, capsys):
    assert main(['time-parts', models[1], '--variants', 'hybrid@8', '--rounds', '1']) == 1
    assert 'legal for plain are dense, cts' in capsys.readouterr().err


BUDGET = TokenBudget(merged_windows=5, keep=(0.5,))  # of 48 tokens 33 are left, then 16, then 8


@pytest.mark.parametrize('variant, stages, blocks, others', [
    ('dense', [(12, 48, 'head')], 12 * 48, {'head': 1048}),
    ('cts', [(12, 33, 'head')], 12 * 33, {'policy': 3, 'head': 1033}),
    ('dtop@8', [(8, 48, 'auxiliary head'), (4, 24, 'head')], 8 * 48 + 4 * 24,
     {'auxiliary_heads': 148, 'head': 1024}),
    ('hybrid@6+8', [(6, 33, 'auxiliary head'), (2, 16, 'auxiliary head'), (4, 8, 'head')],
     6 * 33 + 2 * 16 + 4 * 8, {'policy': 3, 'auxiliary_heads': 133 + 116, 'head': 1008}),
])  # fmt: skip
@pytest.mark.parametrize('refinement', ['none', 'image'])
def test_parts_add_up_to_a_variant(variant, stages, blocks, others, refinement):
    spec = tiny_spec(refinement=refinement)
    variant = Variant.parse(variant)
    assert [(stage.layers, stage.tokens, stage.head) for stage in encoder_stages(spec, variant, BUDGET)] == stages
    counts = (48, 33, 24, 16, 8)
    parts = {'embedding': 1.0, 'policy': 3.0, 'refinement': 4.0}
    parts.update({f'block, {count} tokens': count for count in counts})
    parts.update({f'auxiliary head, {count} tokens': 100 + count for count in counts})
    parts.update({f'head, {count} tokens': 1000 + count for count in counts})
    expected = {'embedding': 1.0, 'blocks': blocks, **others}
    assert sum_parts(parts, spec, variant, BUDGET) == expected | ({'refinement': 4.0} if refinement == 'image' else {})


@pytest.mark.parametrize('overrides', [
    {}, {'refinement': 'image'}, {'head': 'light', 'backbone': Backbone(24, 12, 3, register_tokens=2)},
    {'head': 'segvit_atm'}, {'head': 'mask_transformer'}, {'policy': 'none'},
], ids=str)  # fmt: skip
def test_every_part_that_a_variant_adds_up_is_timed_and_runs(overrides):
    spec = tiny_spec(**{'variant': Variant(), **overrides})
    model = HybridSegmenter(spec).eval()
    for name in spec.legal_variants():
        variant = Variant.parse(name)
        parts = parts_of(model, [variant], BUDGET)
        with torch.inference_mode():
            for call in parts.values():
                call()
        sums = sum_parts(dict.fromkeys(parts, 1.0), spec, variant, BUDGET)
        assert sums['blocks'] == 12 and ('policy' in sums) == variant.merges
        assert f'{WHOLE_NETWORK}, {name}' in parts
