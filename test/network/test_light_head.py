"""The light auxiliary head: ATM's interface, token by token."""

import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead
from hybrid_seg_ros.network.light_head import LightHead
from hybrid_seg_ros.network.segmenter import HybridSegmenter


def head(classes=5):
    torch.manual_seed(0)
    return LightHead(24, classes, 12).eval()


@torch.no_grad()
def test_same_interface_as_atm():
    tokens = torch.randn(3, 7, 24)
    ours, atm = head()(tokens), AtmHead(24, 5, 12, 1, 3)(tokens)
    assert ours.class_logits.shape == atm.class_logits.shape == (3, 5, 2)
    assert ours.mask_logits.shape == atm.mask_logits.shape == (3, 5, 7)


@torch.no_grad()
def test_each_token_is_judged_alone():
    tokens = torch.randn(2, 7, 24)
    whole = head()(tokens).mask_logits
    for index in range(7):
        torch.testing.assert_close(head()(tokens[:, index : index + 1]).mask_logits[..., 0], whole[..., index])


@torch.no_grad()
def test_presence_is_that_of_the_most_certain_token():
    light = head()
    light.presence_scale.copy_(torch.arange(1.0, 6.0))
    light.presence_bias.fill_(-0.5)
    output = light(torch.randn(2, 7, 24))
    expected = (output.mask_logits.amax(2) * torch.arange(1.0, 6.0) - 0.5).sigmoid()
    torch.testing.assert_close(AtmHead.class_probability(output.class_logits), expected)


@torch.no_grad()
def test_padding_is_not_seen():
    tokens = torch.randn(2, 7, 24)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 4:] = False
    output = head()(tokens, valid)
    torch.testing.assert_close(output.class_logits[1], head()(tokens[1:, :4]).class_logits[0])
    torch.testing.assert_close(output.class_logits[0], head()(tokens[:1]).class_logits[0])


def test_presence_does_not_train_a_single_token():
    light = head()
    light(torch.randn(2, 7, 24)).class_logits.sum().backward()
    assert light.presence_scale.grad.abs().sum() > 0 and light.presence_bias.grad.abs().sum() > 0
    assert light.fc2.weight.grad is None and light.fc1.weight.grad is None


@pytest.mark.parametrize('changes', [{}, {'head': 'light'}, {'head': 'light', 'auxiliary_head': 'atm'}], ids=str)
@pytest.mark.parametrize('budget', [TokenBudget(keep=0.5), TokenBudget(threshold=0.3, keep_per_class=0)])
@torch.no_grad()
def test_prunes_in_the_network(budget, changes):
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec(**{'auxiliary_head': 'light', **changes})).eval()
    images = torch.randn(3, 3, 96, 128)
    output = model(images, Variant.parse('hybrid@6+8'), budget)
    assert 0 < output.stages[0].alive.counts().max() < output.layout.num_tokens
    for index in range(3):
        alone = model(images[index : index + 1], Variant.parse('hybrid@6+8'), budget)
        torch.testing.assert_close(alone.scores[0], output.scores[index], atol=1e-5, rtol=1e-4)
