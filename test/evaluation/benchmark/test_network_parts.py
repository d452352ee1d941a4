"""Parts of models: every part that a variant adds up runs, whatever the model has."""

import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.evaluation.benchmark.network_parts import WHOLE_NETWORK, parts_of, sum_parts
from hybrid_seg_ros.model_spec import Backbone, TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter

BUDGET = TokenBudget(merged_windows=5, keep=(0.5,))  # of 48 tokens 33 are left, then 16, then 8


@pytest.mark.parametrize('variant, blocks, others', [
    ('dense', 12 * 48, {'head': 1048}),
    ('cts', 12 * 33, {'policy': 3, 'head': 1033}),
    ('dtop@8', 8 * 48 + 4 * 24,
     {'auxiliary_heads': 148, 'head': 1024}),
    ('hybrid@6+8', 6 * 33 + 2 * 16 + 4 * 8, {'policy': 3, 'auxiliary_heads': 133 + 116, 'head': 1008}),
])  # fmt: skip
def test_parts_add_up_to_a_variant(variant, blocks, others):
    spec = tiny_spec(refinement='image')
    variant = Variant.parse(variant)
    counts = (48, 33, 24, 16, 8)
    parts = {'policy': 3.0, 'refinement': 4.0, **{f'embedding, {count} tokens': 1.0 for count in counts}}
    parts.update({f'block, {count} tokens': count for count in counts})
    parts.update({f'auxiliary head, {count} tokens': 100 + count for count in counts})
    parts.update({f'head, {count} tokens': 1000 + count for count in counts})
    expected = {'embedding': 1.0, 'blocks': blocks, 'refinement': 4.0, **others}
    assert sum_parts(parts, spec, variant, BUDGET) == expected


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
