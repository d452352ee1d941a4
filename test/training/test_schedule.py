"""Learning rate, optimiser groups, moving average."""

import dataclasses

import pytest
import torch
from tiny_model import tiny_spec
from tiny_training import tiny_config

from hybrid_seg_ros.model_spec import Backbone
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.weight_update import create_optimizer, learning_rate_factor, update_average


def test_learning_rate():
    schedule = dataclasses.replace(tiny_config(), warmup_steps=4, steps=104, poly_power=1.0)
    factors = [learning_rate_factor(step, schedule) for step in range(105)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[54] == pytest.approx(0.5) and factors[104] == 0
    assert all(a >= b for a, b in zip(factors[4:], factors[5:]))
    assert learning_rate_factor(0, dataclasses.replace(schedule, warmup_steps=0)) == 1.0
    assert learning_rate_factor(0, dataclasses.replace(schedule, warmup_steps=1)) == 1.0


@pytest.mark.parametrize('first', [0.0, 1e-6, 0.1, 1.0])
def test_warmup_starts_at_its_factor_and_ends_at_one(first):
    schedule = tiny_config(warmup_steps=5, warmup_factor=first, steps=50)
    factors = [learning_rate_factor(step, schedule) for step in range(5)]
    assert factors[0] == pytest.approx(first) and factors[4] == 1.0
    assert factors[2] == pytest.approx((1 + first) / 2)


def test_optimiser_groups():
    model = HybridSegmenter(tiny_spec())
    config = tiny_config(learning_rate=0.1, trunk_factor=0.5, head_factor=10.0, weight_decay=0.3, betas=(0.8, 0.95))
    optimizer = create_optimizer(model, config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)]: (group['lr'], group['weight_decay'])
             for group in optimizer.param_groups for parameter in group['params']}  # fmt: skip
    assert found.keys() == set(names.values())
    assert all(group['betas'] == (0.8, 0.95) for group in optimizer.param_groups)
    for name, expected in {
        'encoder.blocks.0.mlp.fc1.weight': (0.1, 0.3),
        'encoder.blocks.0.mlp.fc1.bias': (0.1, 0.0),
        'encoder.blocks.0.norm1.weight': (0.1, 0.0),
        'encoder.pos_embed': (0.1, 0.0),
        'head.decoder.layers.0.linear1.weight': (1.0, 0.3),
        'head.query.weight': (1.0, 0.0),
        'auxiliary_heads.6.class_embed.weight': (1.0, 0.3),
        'policy.head.weight': (1.0, 0.3),
        'policy.backbone.blocks.5.0.conv_pw.weight': (0.05, 0.3),
        'policy.backbone.conv_stem.weight': (0.05, 0.3),
        'policy.backbone.bn1.weight': (0.05, 0.0),
    }.items():
        assert found[name] == pytest.approx(expected), name


@pytest.mark.parametrize('factor', [1.0, 0.5])
def test_layers_of_the_encoder_learn_at_rates_of_their_own(factor):
    """Each layer that is behind one more has a rate so much lower; the embedding counts as a layer, heads as none."""
    backbone = Backbone(24, 12, 3, class_token=True, register_tokens=2, final_norm=True)
    model = HybridSegmenter(tiny_spec(backbone=backbone))
    config = tiny_config(learning_rate=1.0, head_factor=3.0, trunk_factor=2.0, layer_decay=factor)
    optimizer = create_optimizer(model, config)
    rates = {id(parameter): group['lr'] for group in optimizer.param_groups for parameter in group['params']}
    for name, parameter in model.named_parameters():
        part, _, rest = name.partition('.')
        if part == 'encoder':
            behind = 0 if rest.startswith('norm.') else 12
            behind = 11 - int(rest.split('.')[1]) if rest.startswith('blocks.') else behind
            assert rates[id(parameter)] == pytest.approx(factor**behind), name
        else:
            assert rates[id(parameter)] == (2.0 if name.startswith('policy.backbone.') else 3.0), name
    decays = {id(parameter): group['weight_decay'] for group in optimizer.param_groups for parameter in group['params']}
    for parameter in (model.encoder.cls_token, model.encoder.register_tokens, model.encoder.pos_embed):
        assert decays[id(parameter)] == 0


def test_average_follows_quickly_at_first():
    model = torch.nn.Linear(1, 1, bias=False)
    average = {'weight': torch.zeros(1, 1)}
    torch.nn.init.ones_(model.weight)
    update_average(average, model, 0.99, step=0)
    assert average['weight'].item() == pytest.approx(0.9)
    update_average(average, model, 0.99, step=10_000)
    assert average['weight'].item() == pytest.approx(0.9 + 0.1 * 0.01)
    update_average(average, model, 0.0, step=10_000)
    assert average['weight'].item() == 1.0
