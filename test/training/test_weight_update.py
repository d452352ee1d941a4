"""One step: accumulated batches, gradients that are not finite, float16; learning rates and the moving average."""

import dataclasses

import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_model import tiny_spec
from tiny_training import log_rows, same_state, tiny_config
from torch import nn

from hybrid_seg_ros.model_spec import Backbone, TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training import weight_update
from hybrid_seg_ros.training.batches import Batch
from hybrid_seg_ros.training.devices import Processes
from hybrid_seg_ros.training.objective import EvaluationReport, Objective
from hybrid_seg_ros.training.run_loop import run_training
from hybrid_seg_ros.training.weight_update import (
    MAX_SKIPPED_STEPS,
    WeightUpdate,
    create_optimizer,
    learning_rate_factor,
    update_average,
)

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=5, val=1)


def mean_over_images(model, batch, step, config):
    model.eval()
    scores = model(model.normalize(batch.images), Variant(), TokenBudget(), supervise=True).scores
    is_sky = (batch.labels[:, 8::16, 8::16] == 0).float()
    return {'squares': ((scores[:, 0] - is_sky) ** 2).mean()}


def mean_objective():
    def evaluate(*_):
        return EvaluationReport({'error': 1.0})

    return Objective(mean_over_images, evaluate, ('error',), '-error')


def test_accumulated_batches_equal_a_large_one(root, tmp_path):
    """Images are drawn and augmented by their position in the run, so that both see the same ones."""
    for name, changes in (('large', {'batch_size': 4}), ('accumulated', {'batch_size': 2, 'accumulate': 2})):
        config = tiny_config(steps=3, learning_rate=1e-3, **changes)
        run_training(config, root, tmp_path / name, mean_objective())
    large, accumulated = (log_rows(tmp_path / name) for name in ('large', 'accumulated'))
    for row, expected in zip(accumulated, large):
        for column in ('loss', 'gradient_norm', 'learning_rate'):
            assert float(row[column]) == pytest.approx(float(expected[column]), rel=1e-4), column
    assert not same_state(tmp_path / 'large' / 'state.pt', tmp_path / 'accumulated' / 'state.pt')  # rounding


class Line(nn.Module):
    """A model with one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


def batch(number=0):
    nothing = torch.zeros(1)
    return Batch(number, ('frame 7',), nothing, nothing, nothing)


def line_update(losses, **changes):
    model, config = Line(), tiny_config(**{'warmup_steps': 0, 'learning_rate': 0.1, 'weight_decay': 0.0, **changes})
    return model, WeightUpdate(model, losses, create_optimizer(model, config), config, Processes(), CPU)


@pytest.fixture
def float16(monkeypatch):
    """Give the CPU a loss scale, as a GPU has with float16; the arithmetic is the same."""
    real = torch.amp.GradScaler
    monkeypatch.setattr(weight_update.torch.amp, 'GradScaler',
                        lambda device, enabled: real(device, init_scale=4.0, growth_interval=2, enabled=enabled))


class Infinite(torch.autograd.Function):
    """Passes its input on, with an infinite gradient."""

    @staticmethod
    def forward(context, value):
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float('inf')


def infinite_but(*good):
    return lambda model, batch, step, config: {
        'line': (model.weight if step in good else Infinite.apply(model.weight)).sum()}


def test_an_infinite_gradient_is_skipped_in_float16_and_halves_the_scale(float16):
    model, update = line_update(infinite_but(1), precision='float16')
    assert update([batch()], 0)['gradient_norm'] == float('inf')
    assert model.weight.item() == 1.0 and update.state_dict()['scaler']['scale'] == 2.0
    assert update.state_dict()['skipped'] == 1
    assert update([batch()], 1)['gradient_norm'] == pytest.approx(1.0)
    assert model.weight.item() == pytest.approx(0.9, abs=0.01) and update.state_dict()['skipped'] == 0


def test_the_loss_scale_is_part_of_the_state(float16):
    _, update = line_update(infinite_but(), precision='float16')
    for step in range(2):
        update([batch()], step)
    _, resumed = line_update(infinite_but(), precision='float16')
    resumed.load_state_dict(update.state_dict())
    assert resumed.state_dict() == update.state_dict()
    assert resumed.state_dict()['scaler']['scale'] == 1.0 and resumed.state_dict()['skipped'] == 2


def test_too_many_skipped_steps_stop_the_run(float16):
    model, update = line_update(infinite_but(), precision='float16', steps=100)
    for step in range(MAX_SKIPPED_STEPS):
        update([batch()], step)
    with pytest.raises(FloatingPointError, match=rf'step 20: .* in {MAX_SKIPPED_STEPS + 1} steps running.*frame 7'):
        update([batch()], MAX_SKIPPED_STEPS)
    assert model.weight.item() == 1.0


def test_an_infinite_gradient_stops_other_precisions():
    model, update = line_update(infinite_but())
    with pytest.raises(FloatingPointError, match='step 0: the gradient is not finite: norm inf, samples frame 7'):
        update([batch()], 0)
    assert model.weight.item() == 1.0


def test_a_loss_that_is_not_finite_in_any_batch_stops():
    def losses(model, batch, step, config):
        return {'line': model.weight.sum() * (float('nan') if batch.number == 1 else 1.0)}

    model, update = line_update(losses, accumulate=3)
    with pytest.raises(FloatingPointError, match='step 5: the loss is not finite'):
        update([batch(number) for number in range(3)], 5)
    assert model.weight.item() == 1.0


def test_each_accumulated_batch_counts():
    def losses(model, batch, step, config):
        return {'line': model.weight.sum() * batch.number}

    _, update = line_update(losses, accumulate=3, clip_norm=1e3)
    values = update([batch(number) for number in (1, 2, 6)], 0)
    assert values['loss'] == pytest.approx(3.0) and values['gradient_norm'] == pytest.approx(3.0)


def test_the_gradient_is_clipped():
    def losses(model, batch, step, config):
        return {'line': (model.weight * 30.0).sum()}

    model, update = line_update(losses, clip_norm=0.5)
    assert update([batch()], 0)['gradient_norm'] == pytest.approx(30.0)
    assert model.weight.grad.item() == pytest.approx(0.5)


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
    config = tiny_config(learning_rate=0.1, head_factor=10.0, weight_decay=0.3, betas=(0.8, 0.95))
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
        'policy.backbone.blocks.5.0.conv_pw.weight': (0.1, 0.3),
        'policy.backbone.conv_stem.weight': (0.1, 0.3),
        'policy.backbone.bn1.weight': (0.1, 0.0),
    }.items():
        assert found[name] == pytest.approx(expected), name


@pytest.mark.parametrize('factor', [1.0, 0.5])
def test_layers_of_the_encoder_learn_at_rates_of_their_own(factor):
    """Each layer that is behind one more has a rate so much lower; the embedding counts as a layer, heads as none."""
    backbone = Backbone(24, 12, 3, class_token=True, register_tokens=2, final_norm=True)
    model = HybridSegmenter(tiny_spec(backbone=backbone))
    config = tiny_config(learning_rate=1.0, head_factor=3.0, layer_decay=factor)
    optimizer = create_optimizer(model, config)
    rates = {id(parameter): group['lr'] for group in optimizer.param_groups for parameter in group['params']}
    for name, parameter in model.named_parameters():
        part, _, rest = name.partition('.')
        if part == 'encoder':
            behind = 0 if rest.startswith('norm.') else 12
            behind = 11 - int(rest.split('.')[1]) if rest.startswith('blocks.') else behind
            assert rates[id(parameter)] == pytest.approx(factor**behind), name
        else:
            assert rates[id(parameter)] == (1.0 if name.startswith('policy.backbone.') else 3.0), name
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
