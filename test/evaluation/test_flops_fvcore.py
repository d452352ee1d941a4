"""The formulas agree with fvcore, which traces the real network; its fused attention is counted by hand."""

import logging

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from tiny_model import tiny_spec
from torch import nn

from hybrid_seg_ros.evaluation.flops import count_flops, expected_tokens
from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter


def attention_flops(inputs, outputs):
    """Two products of (N x d) and (d x N) per head."""
    batch, heads, tokens, width = inputs[0].type().sizes()
    return 2 * batch * heads * tokens * tokens * width


class Traced(nn.Module):
    def __init__(self, model, variant, budget):
        super().__init__()
        self.model, self.variant, self.budget = model, variant, budget

    def forward(self, image):
        return self.model(image, self.variant, self.budget).scores


FORMS = {
    'the paper': {'stem': 'patch'},
    'shared trunk': {'stem': 'shared_trunk'},
    'shared trunk and policy, light, refined': {
        'stem': 'shared_trunk', 'policy': 'shared_trunk', 'auxiliary_head': 'light', 'refinement': 'trunk',
    },
    'deep trunk': {'stem': 'deep_trunk', 'policy': 'shared_trunk', 'auxiliary_head': 'light', 'refinement': 'trunk'},
    'trunk for the policy alone': {'stem': 'patch', 'policy': 'shared_trunk'},
    'policy on half the size': {'stem': 'patch', 'policy': 'half_size'},
    'depthwise policy': {'stem': 'shared_trunk', 'policy': 'depthwise', 'refinement': 'trunk'},
    'policy on patches': {'stem': 'patch', 'policy': 'patch_mlp', 'auxiliary_head': 'light'},
}  # fmt: skip


@pytest.mark.parametrize('form', FORMS.values(), ids=FORMS)
@pytest.mark.parametrize('name', ['dense', 'cts', 'dtop@6+8', 'hybrid@8'])
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
@torch.no_grad()
def test_agrees_with_fvcore(name, form):
    logging.getLogger('fvcore').setLevel(logging.ERROR)  # it lists the operators that its convention does not count
    variant, budget = Variant.parse(name), TokenBudget(keep=(0.6,))
    spec = tiny_spec(input_size_hw=(96, 128), **form)
    counter = FlopCountAnalysis(Traced(HybridSegmenter(spec).eval(), variant, budget), torch.zeros(1, 3, 96, 128))
    counter.set_op_handle('aten::scaled_dot_product_attention', attention_flops)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    entering, kept = expected_tokens(spec, (96, 128), variant, budget)
    ours = count_flops(spec, (96, 128), variant, entering, kept)
    assert counter.total() == pytest.approx(ours.total - ours.upsampling, rel=1e-6)
