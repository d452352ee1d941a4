"""The light head: ATM's interface, token by token, and a softmax as ATM's score."""

import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.token_heads import LightHead
from hybrid_seg_ros.training.train_segmenter import class_scores


def head(classes=5):
    """Return a head whose batch norm does something."""
    torch.manual_seed(0)
    light = LightHead(24, classes).eval()
    for values in (light.norm.running_mean, light.norm.bias):
        values.data.normal_()
    for values in (light.norm.running_var, light.norm.weight):
        values.data.uniform_(0.5, 2.0)
    return light


def passing_on(classes):
    """Return a head whose logits are its tokens."""
    light = LightHead(classes, classes).eval()
    light.norm.running_var.fill_(1 - light.norm.eps)
    light.classify.weight.data.copy_(torch.eye(classes))
    light.classify.bias.data.zero_()
    return light


@torch.no_grad()
def test_same_interface_as_atm():
    tokens = torch.randn(3, 7, 24)
    ours, atm = head()(tokens), AtmHead(24, 5, 12, 1, 3)(tokens)
    assert ours.class_logits.shape == atm.class_logits.shape == (3, 5, 2)
    assert ours.mask_logits.shape == atm.mask_logits.shape == (3, 5, 7)


@torch.no_grad()
def test_batch_norm_and_linear_layer():
    light, tokens = head(), torch.randn(2, 7, 24)
    norm = light.norm
    normed = (tokens - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    expected = (normed @ light.classify.weight.T + light.classify.bias).softmax(-1)
    torch.testing.assert_close(light(tokens).mask_logits.sigmoid(), expected.transpose(1, 2), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize('classes', [1, 2, 5])
@pytest.mark.parametrize('scale', [0.0, 1.0, 30.0, 200.0])
def test_score_is_the_softmax(classes, scale):
    """Of however certain a token, and finite, gradients too."""
    generator = torch.Generator().manual_seed(0)
    logits = scale * (2 * torch.rand(2, 40, classes, generator=generator) - 1)
    logits[0, :classes] = scale * (2 * torch.eye(classes) - 1)
    logits.requires_grad_()
    output = passing_on(classes)(logits)
    present = AtmHead.class_probability(output.class_logits)
    scores = present[:, :, None] * output.mask_logits.sigmoid()
    torch.testing.assert_close(scores, logits.softmax(-1).transpose(1, 2), atol=1.2e-6, rtol=0)
    as_logits = class_scores(output.class_logits, output.mask_logits[..., None])[..., 0]
    torch.testing.assert_close(as_logits, logits.log_softmax(-1).transpose(1, 2), atol=2e-6, rtol=1e-5)
    as_logits[0, 0].sum().backward()
    own = torch.zeros_like(logits)
    own[0, :, 0] = 1
    expected = own - own.sum(-1, keepdim=True) * logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_token_is_judged_alone():
    tokens = torch.randn(2, 7, 24)
    whole = head()(tokens).mask_logits
    for index in range(7):
        torch.testing.assert_close(head()(tokens[:, index : index + 1]).mask_logits[..., 0], whole[..., index])


@torch.no_grad()
def test_padding_is_not_learned_from():
    tokens = torch.randn(2, 7, 24)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 4:] = False
    padded, alone = head().train(), head().train()
    with_padding = padded(tokens, valid).mask_logits
    without = alone(torch.cat([tokens[0], tokens[1, :4]])[None]).mask_logits[0]
    torch.testing.assert_close(with_padding[0], without[:, :7])
    torch.testing.assert_close(with_padding[1, :, :4], without[:, 7:])
    torch.testing.assert_close(padded.state_dict(), alone.state_dict())
    assert not torch.equal(padded.norm.running_mean, head().norm.running_mean)


@pytest.mark.parametrize('changes', [{}, {'head': 'light'}, {'head': 'light', 'auxiliary_head': 'atm'}], ids=str)
@pytest.mark.parametrize('budget', [TokenBudget(keep=0.5), TokenBudget(threshold=0.3, keep_per_class=0)], ids=str)
@torch.no_grad()
def test_prunes_in_the_network(budget, changes):
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec(**{'auxiliary_head': 'light', **changes})).eval()
    for module in model.modules():
        if isinstance(module, LightHead):
            module.classify.weight *= 5.0  # of 11 classes one has some probability
    images = torch.randn(3, 3, 96, 128)
    output = model(images, Variant.parse('hybrid@6+8'), budget)
    assert 0 < output.stages[0].alive.counts().max() < output.layout.num_tokens
    for index in range(3):
        alone = model(images[index : index + 1], Variant.parse('hybrid@6+8'), budget)
        torch.testing.assert_close(alone.scores[0], output.scores[index], atol=1e-5, rtol=1e-4)
