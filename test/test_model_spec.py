"""Model specifications: what is read, what is refused, and that writing reads back."""

import dataclasses
from fractions import Fraction

import pytest
import yaml
from tiny_model import tiny_spec

from hybrid_seg_ros.model_spec import PAPER_VARIANTS, Backbone, ModelSpec, ModelSpecError, TokenBudget, Variant


@pytest.mark.parametrize('name', [*PAPER_VARIANTS, 'dtop@3+5+7'])
def test_variants_read_back(name):
    assert str(Variant.parse(name)) == name


@pytest.mark.parametrize('name', ['', 'fast', 'dense@8', 'dtop', 'hybrid@', 'dtop@8+6', 'dtop@8+8', 'dtop@0', ' cts'])
def test_illegal_variants(name):
    with pytest.raises(ModelSpecError, match='variant'):
        Variant.parse(name)


@pytest.mark.parametrize(
    'changes',
    [
        {'threshold': 0.0}, {'threshold': 1.1}, {'keep': 0}, {'keep': 0.0}, {'keep': 1.5}, {'keep': True}, {'keep': -1},
        {'keep': (0.5, 0)}, {'keep': Fraction(1, 2)}, {'merged_windows': -1}, {'merged_windows': 1.5},
        {'merged_windows': {}}, {'merged_windows': {3: 1}}, {'merged_windows': {4: -1, 2: 1}},
        {'merged_windows': {4: 1.5}}, {'merged_windows': {2: True}}, {'merged_windows': [4, 12]},
        {'merged_windows': {'4': 1}}, {'keep_per_class': -1},
    ],
)  # fmt: skip
def test_illegal_budgets(changes):
    with pytest.raises(ModelSpecError, match=next(iter(changes))):
        TokenBudget(**changes)


def test_keep_per_layer():
    assert [TokenBudget(keep=0.5).keep_at(stage) for stage in (0, 1)] == [0.5, 0.5]
    assert [TokenBudget(keep=(0.5, 9)).keep_at(stage) for stage in (0, 1)] == [0.5, 9]
    assert TokenBudget().keep_at(1) is None
    with pytest.raises(ModelSpecError, match='keep: 2 values'):
        TokenBudget(keep=(0.5, 9)).keep_at(2)


@pytest.mark.parametrize(
    ('given', 'merged_windows', 'windows'),
    [
        (7, 7, ((2, 7),)), (0.4, 0.4, ((2, 0.4),)), ({2: 7}, 7, ((2, 7),)), ({2: 0.4}, 0.4, ((2, 0.4),)),
        ({2: 72, 4: 12}, ((4, 12), (2, 72)), ((4, 12), (2, 72))), ([[4, 12], [2, 0.5]], ((4, 12), (2, 0.5)), None),
        ({8: 1}, ((8, 1),), None), (((2, 0), (8, 1)), ((8, 1), (2, 0)), None),
    ],
)  # fmt: skip
def test_windows_have_one_form(given, merged_windows, windows):
    """However they are given, so that budgets can be compared; one size alone, 2, is a number."""
    budget = TokenBudget(merged_windows=given)
    assert budget.merged_windows == merged_windows and budget.windows == (windows or merged_windows)
    assert budget == TokenBudget(merged_windows=budget.windows) and hash(budget)


@pytest.mark.parametrize('changes', [
    {}, {'budget': TokenBudget(keep=(0.5, 9))}, {'mean': (1.0, 2.0, 3.0)},
    {'window_sizes': (8, 4, 2), 'budget': TokenBudget(merged_windows={2: 3, 4: 0.25})},
    {'backbone': Backbone(24, 12, 3, class_token=True, register_tokens=4), 'refinement': 'image', 'head': 'light'},
])  # fmt: skip
def test_a_spec_reads_back(tmp_path, changes):
    spec = tiny_spec(**changes)
    spec.save(tmp_path / 'model.yaml')
    assert ModelSpec.load(tmp_path / 'model.yaml') == dataclasses.replace(spec, folder=tmp_path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'policy': 'other'}, 'policy: unknown value .*efficientnet_lite0, half_size'),
        ({'stem': 'deep_trunk'}, r"unknown keys \['stem'\]"),
        ({'window_sizes': [4]}, r'window_sizes: expected 2, and more of \(2, 4, 8\), got \(4,\)'),
        ({'window_sizes': [2, 6]}, 'window_sizes: expected 2, and more'),
        ({'budget': {'merged_windows': {4: 1}}}, r'merged_windows: expected window sizes of tiny, \(2,\), got 4'),
        ({'backbone': {'preset': 'vit_tiny', 'register_tokens': -1}}, 'register_tokens >= 0, got -1'),
        ({'colour': 1}, r"unknown keys \['colour'\]"),
        ({'budget': {'keeps': 1}}, r"unknown keys \['keeps'\] for TokenBudget"),
        ({'backbone': 'vit_huge'}, 'vit_tiny, vit_small, vit_base'),
        ({'auxiliary_layers': [8, 6]}, 'ascending'),
        ({'auxiliary_layers': [12]}, 'ascending layers below 12'),
        ({'input_size_hw': [8, 64]}, 'input_size_hw'),
        ({'std': [1, 0, 1]}, 'std > 0'),
        ({'variant': 'dtop@7'}, 'no auxiliary head after layer 7.*legal for tiny are'),
        ({'policy': 'none'}, 'no policy network'),
        ({'head': 'linear'}, 'cannot write pruned tokens back; legal for tiny are dense, cts'),
    ],
)
def test_illegal_specs_name_file_and_field(tmp_path, changes, message):
    path = tmp_path / 'bad.yaml'
    path.write_text(yaml.safe_dump({**tiny_spec().to_dict(), **changes}))
    with pytest.raises(ModelSpecError, match='bad.yaml.*' + message):
        ModelSpec.load(path)
