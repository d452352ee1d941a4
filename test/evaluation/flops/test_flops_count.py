"""GFLOPs against what fvcore counts on the official code, and step by step: their order, their tokens, their sum."""

import pytest
from tiny_model import tiny_spec

from hybrid_seg_ros.evaluation.flops.count import COMPONENTS, count_flops, count_variants, expected_tokens, form_spec
from hybrid_seg_ros.evaluation.flops.formulas import atm_head_flops, auxiliary_head_flops, block_flops
from hybrid_seg_ros.model_spec import BACKBONES, HEADS, PRUNING_HEADS, Backbone, Decoder, TokenBudget, Variant


@pytest.mark.parametrize(
    ('tokens', 'width', 'expected'), [(1024, 768, 8.866), (715, 768, 5.851), (1024, 192, 0.858), (715, 192, 0.514)]
)
def test_block(tokens, width, expected):
    assert block_flops(tokens, width) / 1e9 == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ('tokens', 'width', 'dim', 'layers', 'expected'),
    [
        (1024, 768, 384, 3, 2.547), (715, 768, 384, 3, 2.075), (1024, 192, 192, 3, 0.702), (715, 192, 192, 3, 0.568),
        (1024, 192, 96, 3, 0.236), (1024, 768, 384, 2, 1.800), (715, 768, 384, 2, 1.454), (1024, 192, 192, 2, 0.481),
    ],
)  # fmt: skip
def test_head(tokens, width, dim, layers, expected):
    assert atm_head_flops(tokens, width, 150, dim, layers) / 1e9 == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ('backbone', 'dense'), [('vit_base', 107.0 + 2.547 + 0.1573), ('vit_tiny', 10.44 + 0.702 + 0.1573)]
)
def test_dense_total(backbone, dense):
    """Backbone with patch embedding, one head, one upsampling; nothing else runs in the dense variant."""
    decoder = Decoder(dim=384 if backbone == 'vit_base' else 192, layers=3)
    spec = form_spec(BACKBONES[backbone], 150, (512, 512), decoder=decoder)
    costs = count_variants(spec, (512, 512), TokenBudget(keep=(1.0,), merged_windows=103 / 256))
    assert costs['dense'].gflops == pytest.approx(dense, abs=0.01)
    assert costs['cts'].tokens == 715
    assert costs['cts'].gflops_of('policy') == pytest.approx(1.971, abs=0.01)
    for cost in costs.values():
        assert cost.gflops == pytest.approx(sum(map(cost.gflops_of, COMPONENTS)))
        assert cost.gflops == pytest.approx(sum(cost.gflops_by_step().values()))


@pytest.mark.parametrize(
    ('backbone', 'head', 'official'),
    [
        ('vit_base', 'segvit_atm', 120.73), ('vit_tiny', 'segvit_atm', 17.22),
        ('vit_base', 'segvit_atm_v2', 113.85 + 5.898), ('vit_tiny', 'segvit_atm_v2', 11.22 + 5.898),
    ],
)  # fmt: skip
def test_segvit_heads_of_three_stages(backbone, head, official):
    """The official heads also classify the queries of the first two stages, for the loss, which is 0.02 at most.

    Official ATMHeadV2 has a product per element where this package mixes all queries: 150 x 150 a pixel more.
    """
    spec = form_spec(BACKBONES[backbone], 150, (512, 512), head=head)
    assert count_variants(spec, (512, 512), TokenBudget())['dense'].gflops == pytest.approx(official, abs=0.03)


@pytest.mark.parametrize('backbone', ['vit_tiny', 'vit_large'])
def test_every_backbone_is_counted_layer_by_layer(backbone):
    spec = form_spec(BACKBONES[backbone], 19, (360, 640))
    cost = count_variants(spec, (360, 640), TokenBudget(keep=(0.5,)))['hybrid@6+8']
    layers = [step.flops for step in cost.steps if step.name.startswith('layer ')]
    assert len(layers) == spec.backbone.depth and sum(layers) == pytest.approx(1e9 * cost.gflops_of('blocks'))


def test_what_json_has_of_a_variant():
    spec = form_spec(BACKBONES['vit_tiny'], 19, (64, 96))
    cost = count_variants(spec, (64, 96), TokenBudget(keep=(0.5,), merged_windows=0.5), [Variant.parse('hybrid@8')])
    row = cost['hybrid@8'].as_dict()
    assert list(row) == ['tokens', 'kept@8', *COMPONENTS, 'total']
    assert (row['tokens'], row['kept@8']) == (15, 8)  # 3 of 6 windows of 4 patches share a token, then half
    with_layers = cost['hybrid@8'].as_dict(layers=True)
    assert {**row, 'layers': cost['hybrid@8'].gflops_by_step()} == with_layers
    assert list(with_layers['layers'])[:3] == ['embedding', 'policy', 'layer 1']


SIZE_HW = (96, 144)


def counted(spec, name, merged_windows=0.4, keep=0.6):
    budget = TokenBudget(merged_windows=merged_windows, keep=(keep,))
    variant = Variant.parse(name)
    return (spec, SIZE_HW, variant, *expected_tokens(spec, SIZE_HW, variant, budget))


def of_steps(*arguments):
    return {step.name: step.flops for step in count_flops(*arguments).steps}


def of_head(head):
    return tiny_spec(variant=Variant(), head=head, refinement='image' if head in PRUNING_HEADS else 'none')


@pytest.mark.parametrize('head', HEADS)
def test_the_sum_is_the_total(head):
    arguments = counted(of_head(head), of_head(head).legal_variants()[-1])
    cost = count_flops(*arguments)
    assert sum(step.flops for step in cost.steps) == cost.flops
    assert sum(map(cost.gflops_of, COMPONENTS)) == pytest.approx(cost.gflops)


def test_the_order_and_the_tokens_of_each_layer():
    spec = tiny_spec(refinement='image')
    flops = of_steps(*counted(spec, 'hybrid@6+8'))
    assert list(flops) == [
        'embedding', 'policy', *(f'layer {layer}' for layer in range(1, 7)), 'auxiliary head 6', 'layer 7',
        'layer 8', 'auxiliary head 8', *(f'layer {layer}' for layer in range(9, 13)), 'head', 'refinement',
        'upsampling',
    ]  # fmt: skip
    entering, ((_, after_6), (_, after_8)) = counted(spec, 'hybrid@6+8')[3:]
    assert flops['layer 6'] == block_flops(entering, 24) and flops['layer 7'] == block_flops(after_6, 24)
    assert flops['auxiliary head 8'] == auxiliary_head_flops(spec, after_6)
    assert flops['layer 12'] == block_flops(after_8, 24) < flops['layer 8'] < flops['layer 1']


def test_what_does_not_run_is_left_out():
    names = list(of_steps(*counted(tiny_spec(), 'dense')))
    assert names == ['embedding', *(f'layer {layer}' for layer in range(1, 13)), 'head', 'upsampling']


def test_without_merged_windows_only_what_chooses_them_is_added():
    """The identity case: no window merges, all tokens stay."""
    spec = tiny_spec()
    dense = of_steps(*counted(spec, 'dense'))
    identity = of_steps(*counted(spec, 'hybrid@8', merged_windows=0, keep=1.0))
    assert set(identity) - set(dense) == {'policy', 'auxiliary head 8'}
    assert {name: identity[name] for name in dense} == dense


def test_what_enters_is_embedded_and_the_prefix_goes_through_all_layers():
    spec = tiny_spec(backbone=Backbone(24, 12, 3, class_token=True, register_tokens=4))
    flops = of_steps(spec, SIZE_HW, Variant.parse('cts'), 30)
    assert flops['embedding'] == 30 * 3 * 16**2 * 24
    assert flops['layer 1'] == flops['layer 12'] == block_flops(30 + 5, 24)


def test_tokens_of_other_layers_are_refused():
    with pytest.raises(ValueError, match=r'expected tokens after layers \(8,\) of dtop@8'):
        count_flops(tiny_spec(), SIZE_HW, Variant.parse('dtop@8'), 54, ((6, 20),))
