"""Folding changes no output, and leaves no batch norm."""

import copy

import pytest
import torch
from tiny_model import tiny_spec
from torch import nn

from hybrid_seg_ros.model_spec import POLICIES, TokenBudget, Variant
from hybrid_seg_ros.network.inference_form import fold_batch_norms, prepare_for_inference
from hybrid_seg_ros.network.segmenter import HybridSegmenter

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
FORMS = [{'policy': kind, 'window_sizes': (2, 4)} for kind in POLICIES if kind != 'none']
LIGHT = {'policy': 'patch_mlp', 'head': 'light', 'auxiliary_head': 'light'}


def build(**form):
    """Return a model whose batch norms do something."""
    torch.manual_seed(0)
    return with_lively_norms(HybridSegmenter(tiny_spec(**form))).eval()


def with_lively_norms(model):
    """Give each batch norm some statistics and weights."""
    for module in model.modules():
        if isinstance(module, NORMS):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.1)
    return model


@pytest.mark.parametrize('form', [*FORMS, {'refinement': 'image'}, LIGHT], ids=str)
@pytest.mark.parametrize('size_hw', [(96, 128), (112, 144)])  # odd sides at stride 16 pad evenly
@torch.no_grad()
def test_same_outputs(form, size_hw):
    model = build(**form)
    folded = prepare_for_inference(copy.deepcopy(model))
    images = torch.randn(2, 3, *size_hw)
    for name in ('dense', 'cts', 'hybrid@8'):
        expected, found = (m(images, Variant.parse(name), TokenBudget(), supervise=True) for m in (model, folded))
        torch.testing.assert_close(found.policy_logits, expected.policy_logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-4)
    assert any(isinstance(module, NORMS) for module in model.modules()) or form['policy'] == 'patch_mlp'
    assert not any(isinstance(module, NORMS) for module in folded.modules())


@pytest.mark.parametrize('bias', [True, False])
@torch.no_grad()
def test_a_norm_before_a_linear_layer(bias):
    torch.manual_seed(0)
    model = with_lively_norms(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4, bias=bias))).eval().double()
    tokens = torch.randn(5, 6, dtype=torch.float64)
    expected = model(tokens)
    folded = fold_batch_norms(model)
    assert [type(module) for module in folded] == [nn.Identity, nn.Linear]
    torch.testing.assert_close(folded(tokens), expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_twice_is_once():
    once = fold_batch_norms(build())
    state = copy.deepcopy(once.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in fold_batch_norms(once).state_dict().items())


def test_what_cannot_be_folded():
    with pytest.raises(ValueError, match='evaluation mode'):
        fold_batch_norms(build().train())
    for norm in (nn.BatchNorm2d(3), nn.BatchNorm1d(3)):
        with pytest.raises(ValueError, match='no convolution stands before, no linear layer behind 1'):
            fold_batch_norms(nn.Sequential(nn.ReLU(), norm, nn.ReLU()).eval())
