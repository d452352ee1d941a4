"""Step by step: the order, the auxiliary heads behind their layers, and the sum, which is the total."""

import pytest
from tiny_model import tiny_spec

from hybrid_seg_ros.evaluation.flops.count import COMPONENTS, count_flops, expected_tokens
from hybrid_seg_ros.evaluation.flops.formulas import auxiliary_head_flops, block_flops
from hybrid_seg_ros.model_spec import HEADS, PRUNING_HEADS, Backbone, TokenBudget, Variant

SIZE_HW = (96, 144)


def counted(spec, name, merged_windows=0.4, keep=0.6):
    budget = TokenBudget(merged_windows=merged_windows, keep=(keep,))
    variant = Variant.parse(name)
    return (spec, SIZE_HW, variant, *expected_tokens(spec, SIZE_HW, variant, budget))


def of_steps(*arguments):
    return {step.name: step.flops for step in count_flops(*arguments).steps}


def of_head(head):
    return tiny_spec(variant=Variant(), head=head, refinement='image' if head in PRUNING_HEADS else 'none')


@pytest.mark.parametrize(('head', 'name'), [(head, name) for head in HEADS for name in of_head(head).legal_variants()])
def test_the_sum_is_the_total(name, head):
    arguments = counted(of_head(head), name)
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


def test_windows_of_each_size_are_embedded_and_the_prefix_goes_through_all_layers():
    spec = tiny_spec(backbone=Backbone(24, 12, 3, class_token=True, register_tokens=4), window_sizes=(2, 4))
    of_both = of_steps(spec, SIZE_HW, Variant.parse('cts'), 30, (), (4, 2))
    of_one = of_steps(spec, SIZE_HW, Variant.parse('cts'), 30, (), (2,))
    assert of_both['embedding'] - of_one['embedding'] == (6 // 4) * (9 // 4) * 3 * 16**2 * 24
    assert of_both['layer 1'] == of_both['layer 12'] == block_flops(30 + 5, 24)


def test_tokens_of_other_layers_are_refused():
    with pytest.raises(ValueError, match=r'expected tokens after layers \(8,\) of dtop@8'):
        count_flops(tiny_spec(), SIZE_HW, Variant.parse('dtop@8'), 54, ((6, 20),))
