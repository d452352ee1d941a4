"""The formulas agree with fvcore, which traces the real network and the upsampling of its scores.

Two things are counted by hand: PyTorch's fused attention, which fvcore does not know, and the mix of SegViT's masks,
which it rounds. The conventions are fvcore's: batch norm in evaluation mode 2 per element, layer norm 5, bilinear 4.
"""

import logging

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from tiny_model import tiny_spec
from torch import nn

from hybrid_seg_ros import model_spec
from hybrid_seg_ros.evaluation.benchmark.torch_baselines import upsample_then_argmax
from hybrid_seg_ros.evaluation.flops.count import count_flops, count_variants, expected_tokens
from hybrid_seg_ros.evaluation.flops.formulas import BATCH_NORM, BILINEAR, LAYER_NORM
from hybrid_seg_ros.inference.preprocess import fit_geometry
from hybrid_seg_ros.model_spec import Backbone, TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter


def attention_flops(inputs, outputs):
    """Two products of (N x d) and (d x N) per head."""
    batch, heads, tokens, width = inputs[0].type().sizes()
    return 2 * batch * heads * tokens * tokens * width


def mix_flops(inputs, outputs):
    """One product of (classes x queries) and (queries x pixels)."""
    _, classes, height, width = outputs[0].type().sizes()
    return classes * classes * height * width


def traced_flops(module, *inputs):
    logging.getLogger('fvcore').setLevel(logging.ERROR)  # it lists the operators that its convention does not count
    counter = FlopCountAnalysis(module.eval(), inputs)
    counter.set_op_handle('aten::scaled_dot_product_attention', attention_flops, 'aten::einsum', mix_flops)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return counter.total()


class Traced(nn.Module):
    """From a normalised image of the network's size to labels, as the official code goes."""

    def __init__(self, model, variant, budget):
        super().__init__()
        self.model, self.variant, self.budget = model, variant, budget

    def forward(self, image):
        output = self.model(image, self.variant, self.budget)
        labels = upsample_then_argmax(output, fit_geometry(self.model.spec.input_size_hw, self.model.spec))
        # given back, for a trace drops what no output needs: the policy network where no window is to be merged
        return (*labels, *(output.policy_logits or {}).values())


CLASS_TOKEN = Backbone(embed_dim=24, depth=3, num_heads=3, class_token=True, final_norm=True)
FORMS = {
    'the paper': {'policy': 'efficientnet_lite0'},
    'light, refined': {'head': 'light', 'auxiliary_head': 'light', 'refinement': 'image', 'policy': 'patch_mlp'},
    'policy on half the size': {'policy': 'half_size', 'trunk_convention': 'timm'},
    'policy on patches': {'policy': 'patch_mlp', 'auxiliary_head': 'light'},
    'no policy': {'policy': 'none', 'refinement': 'image'},
    'SegViT': {'head': 'segvit_atm'},
    'SegViT of DToP': {'head': 'segvit_atm_v2'},
    'CTS, linear': {'head': 'linear', 'backbone': CLASS_TOKEN},
    'CTS, mask transformer': {'head': 'mask_transformer', 'backbone': CLASS_TOKEN},
    'class token, ATM': {'backbone': CLASS_TOKEN},
    'class token, registers': {'backbone': Backbone(24, 3, 3, class_token=True, register_tokens=4), 'head': 'light'},
    'final norm, pruned': {'backbone': Backbone(24, 3, 3, final_norm=True)},
}  # fmt: skip


def spec_of(form, size_hw=(96, 128), **changes):
    form = {'backbone': Backbone(24, 3, 3), 'auxiliary_layers': (1, 2), 'policy': 'patch_mlp', **FORMS[form]}
    return tiny_spec(input_size_hw=size_hw, variant=Variant(), **form, **changes)


def check(spec, name, budget):
    variant, size_hw = Variant.parse(name), spec.input_size_hw
    traced = traced_flops(Traced(HybridSegmenter(spec), variant, budget), torch.zeros(1, 3, *size_hw))
    entering, kept = expected_tokens(spec, size_hw, variant, budget)
    assert traced == count_flops(spec, size_hw, variant, entering, kept).flops
    assert traced == sum(step.flops for step in count_variants(spec, size_hw, budget, [variant])[name].steps)


@pytest.mark.parametrize(
    ('form', 'name'),
    [*(('policy on patches', name) for name in ('dense', 'cts', 'dtop@2', 'dtop@1+2', 'hybrid@2')),
     ('the paper', 'dense'), ('the paper', 'hybrid@1+2'), ('light, refined', 'hybrid@1+2'),
     ('policy on half the size', 'hybrid@1+2'), ('policy on patches', 'hybrid@1+2'), ('no policy', 'dtop@1+2'),
     ('SegViT', 'cts'), ('SegViT of DToP', 'cts'), ('CTS, linear', 'cts'), ('CTS, mask transformer', 'cts'),
     ('class token, ATM', 'hybrid@1+2'), ('class token, registers', 'hybrid@1+2'),
     ('final norm, pruned', 'hybrid@1+2')],
)  # fmt: skip
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
@torch.no_grad()
def test_agrees_with_fvcore(form, name):
    check(spec_of(form), name, TokenBudget(keep=(0.6,)))


@pytest.mark.parametrize(('form', 'size_hw'), [('light, refined', (80, 144)), ('policy on half the size', (112, 80))])
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
@torch.no_grad()
def test_agrees_on_odd_grids(form, size_hw):
    check(spec_of(form, size_hw), 'cts', TokenBudget(merged_windows=3))


@pytest.mark.parametrize('merged_windows', [0, 1.0])
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
@torch.no_grad()
def test_agrees_however_many_windows_merge(merged_windows):
    """None is the identity case; all of them leave no single token, but this policy needs the patches."""
    check(spec_of('policy on patches'), 'cts', TokenBudget(merged_windows=merged_windows))


@pytest.mark.parametrize(
    ('form', 'name', 'windows'),
    [('policy on half the size', 'cts', {4: 1, 2: 3}), ('policy on patches', 'hybrid@2', {8: 1, 4: 1, 2: 2}),
     ('class token, registers', 'cts', {4: 2, 2: 0}), ('policy on patches', 'cts', {8: 0, 4: 0, 2: 0})],
)  # fmt: skip
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
@torch.no_grad()
def test_agrees_on_windows_of_several_sizes(form, name, windows):
    """What enters is embedded, whatever its size; the policy scores windows of all sizes, also of unused ones."""
    spec = spec_of(form, (144, 208), window_sizes=(2, 4, 8))
    check(spec, name, TokenBudget(merged_windows=windows, keep=(0.6,)))


def test_every_choice_of_a_model_spec_is_traced():
    for field, legal in (('policy', model_spec.POLICIES), ('head', model_spec.HEADS),
                         ('auxiliary_head', model_spec.AUXILIARY_HEADS), ('refinement', model_spec.REFINEMENTS),
                         ('trunk_convention', model_spec.TRUNK_CONVENTIONS)):  # fmt: skip
        assert {getattr(spec_of(form), field) for form in FORMS} == set(legal), field


@pytest.mark.parametrize(
    ('module', 'shape', 'of_each'),
    [
        (nn.BatchNorm2d(4), (1, 4, 6, 10), BATCH_NORM), (nn.LayerNorm(4), (2, 6, 4), LAYER_NORM),
        (nn.Upsample(size=(6, 10), mode='bilinear'), (1, 4, 6, 10), BILINEAR), (nn.Linear(4, 3), (2, 6, 4), 3),
        (nn.GELU(), (2, 6, 4), 0), (nn.Softmax(2), (2, 6, 4), 0),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
def test_conventions_are_those_of_fvcore(module, shape, of_each):
    """A multiply-add is 1, and per element of the input (all sizes here stay as they are)."""
    assert traced_flops(module, torch.zeros(shape)) == of_each * torch.zeros(shape).numel()
