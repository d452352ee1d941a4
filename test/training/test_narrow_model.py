"""A narrow model is fitted to a wide one: as it is where nothing has to go, and by what matters where something has."""

import dataclasses

import pytest
import torch
from foreign_checkpoints import seeded_encoder
from tiny_model import tiny_spec
from torch import nn

from hybrid_seg_ros.model_spec import Backbone, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.narrow_model import LeastSquares, fit_narrow_model
from hybrid_seg_ros.training.train_config import TrainConfigError

WIDE = Backbone(48, 12, 6, class_token=True, register_tokens=2, final_norm=True)
FIELDS = {'head': 'light', 'auxiliary_head': 'light', 'refinement': 'image', 'policy': 'half_size'}


def wide_model():
    """Return a seeded model whose tokens change from layer to layer, and whose heads tell classes apart."""
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec(backbone=WIDE, **FIELDS)).eval()
    model.encoder.load_state_dict(seeded_encoder(WIDE, model.encoder.grid_hw).state_dict())
    for head in (model.head, *model.auxiliary_heads.values()):
        nn.init.normal_(head.classify.weight, std=0.3)
    return model


def images(count, seed):
    coarse = torch.rand((count, 3, 12, 16), generator=torch.Generator().manual_seed(seed))
    return (255 * nn.functional.interpolate(coarse, (96, 128))).to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def masks(model, pictures):
    output = model(model.normalize(pictures), Variant(), model.spec.budget, supervise=True)
    return {stage.layer: stage.mask_logits for stage in output.stages}


def fitted(backbone, source, count=64):
    model = HybridSegmenter(dataclasses.replace(source.spec, backbone=backbone))
    fit_narrow_model(model, source, images(count, 1))
    return model


def agreement(model, source):
    ours, theirs = (masks(each, images(16, 2)) for each in (model, source))
    return {layer: (ours[layer].argmax(1) == theirs[layer].argmax(1)).float().mean().item() for layer in theirs}


def test_a_model_as_wide_says_the_same_of_images_it_was_not_fitted_to():
    source = wide_model()
    model = fitted(WIDE, source)
    ours, theirs = masks(model, images(16, 2)), masks(source, images(16, 2))
    for layer in (6, 8, 12):
        assert (ours[layer] - theirs[layer]).abs().mean() < 0.05 * theirs[layer].std()
    for name, value in source.state_dict().items():
        assert name.startswith(('encoder.', 'head.', 'auxiliary_heads.')) or value.equal(model.state_dict()[name])


def test_half_the_channels_come_close():
    source = wide_model()
    narrow = Backbone(24, 12, 3, class_token=True, register_tokens=2, final_norm=True)
    chance = agreement(HybridSegmenter(dataclasses.replace(source.spec, backbone=narrow)).eval(), source)
    found = agreement(fitted(narrow, source), source)
    assert all(found[layer] > chance[layer] + 0.2 for layer in found)


def test_inputs_are_chosen_whose_loss_costs_most():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((4, 200, 12), generator=generator)
    inputs[..., 2:4] = inputs[..., 8:10] + 0.1 * inputs[..., 10:12]  # nearly what others say as well: may go
    weights = torch.zeros(12, 3)
    weights[2:10] = torch.randn((8, 3), generator=generator)
    weights[2:4] /= 4
    fit = LeastSquares(12, 3, torch.device('cpu'))
    for chunk in inputs:
        fit.add(chunk, 2.0 + chunk @ weights)
    assert fit.choose(6, 3).tolist() == [2, 3, 4]
    made_up = weights[4:10].clone()
    made_up[4:6] += weights[2:4]
    assert torch.allclose(fit.weights(torch.arange(4, 10)).T.float(), made_up, atol=0.05)
    assert torch.allclose(fit.target_mean.float(), inputs.mean((0, 1)) @ weights + 2.0, atol=1e-4)


@pytest.mark.parametrize('change, complaint', [
    ({'backbone': dataclasses.replace(WIDE, depth=10)}, 'model.backbone with depth 12, as its own, got 10'),
    ({'backbone': dataclasses.replace(WIDE, register_tokens=0)}, 'num_prefix_tokens 3, as its own, got 1'),
    ({'backbone': dataclasses.replace(WIDE, embed_dim=96, num_heads=12)}, 'at most 48 channels in heads of 8'),
    ({'backbone': dataclasses.replace(WIDE, embed_dim=24, num_heads=6)}, 'heads of 8, got 24 in 6 heads'),
    ({'policy': 'none', 'window_sizes': (2,), 'variant': Variant()}, 'model.policy half_size, as its own, got none'),
])  # fmt: skip
def test_what_differs_in_more_than_width_is_refused(change, complaint):
    source = HybridSegmenter(tiny_spec(backbone=WIDE, **FIELDS))
    model = HybridSegmenter(dataclasses.replace(source.spec, **change))
    with pytest.raises(TrainConfigError, match=f'narrowed_from: expected .*{complaint}'):
        fit_narrow_model(model, source, images(1, 1))


def test_other_heads_are_refused():
    source = HybridSegmenter(tiny_spec())
    with pytest.raises(TrainConfigError, match='narrowed_from: expected head and auxiliary_head light, got atm'):
        fit_narrow_model(source, source, images(1, 1))
