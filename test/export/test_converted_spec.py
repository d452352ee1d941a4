"""What the weights do not tell is asked for; what a source's code fixes need not be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybrid_seg_ros.export.convert_command import read_classes, read_spec
from hybrid_seg_ros.export.convert_model import converted_spec, encoder_backbone
from hybrid_seg_ros.model_spec import Backbone, Decoder, ModelSpecError, Variant

DECLARED = {
    'backbone': 'vit_base', 'classes': [{'name': 'wall'}, {'name': 'floor'}], 'input_size_hw': [512, 512],
    'mean': [127.5] * 3, 'std': [127.5] * 3, 'auxiliary_layers': [6, 8], 'decoder': {'num_heads': 12},
}  # fmt: skip


def without(*keys: str) -> dict:
    return {key: value for key, value in DECLARED.items() if key not in keys}


def test_segvit() -> None:
    spec = converted_spec('segvit', 'm', DECLARED, False)
    assert (spec.head, spec.policy, spec.variant) == ('segvit_atm', 'none', Variant())
    assert spec.backbone == Backbone(768, 12, 12) and spec.decoder == Decoder(num_heads=12) and spec.decoder_dim == 384


def test_dtop() -> None:
    spec = converted_spec('dtop', 'm', DECLARED, False)
    assert spec.head == 'atm' and str(spec.variant) == 'dtop@6+8'
    assert spec.legal_variants() == ('dense', 'dtop@6+8', 'dtop@8')
    spec = converted_spec('dtop', 'm', {**DECLARED, 'variant': 'hybrid@8'}, True)
    assert str(spec.variant) == 'hybrid@8' and (spec.policy, spec.trunk_convention) == ('efficientnet_lite0', 'timm')


@pytest.mark.parametrize('head', ['linear', 'mask_transformer'])
def test_cts(head: str) -> None:
    declared = {**without('auxiliary_layers'), 'head': head}
    if head == 'linear':  # has no attention
        del declared['decoder']
    spec = converted_spec('cts', 'm', declared, False)
    assert spec.backbone == Backbone(768, 12, 12, layer_norm_eps=1e-5, class_token=True, final_norm=True)
    assert str(spec.variant) == 'cts' and spec.trunk_convention == 'timm' and spec.decoder.layers == 2
    spec = converted_spec('cts', 'm', {**declared, 'policy': 'none', 'backbone': {'preset': 'vit_tiny'}}, False)
    assert str(spec.variant) == 'dense' and spec.backbone.class_token and spec.backbone.embed_dim == 192


@pytest.mark.parametrize(
    'source, declared, listed',
    [
        ('segvit', {}, ['--backbone', '--classes', '--input-size', '--normalization', '--auxiliary-layers']),
        ('dtop', without('decoder'), ['decoder.num_heads (--decoder-heads)']),
        ('dtop', without('auxiliary_layers'), ['auxiliary_layers (--auxiliary-layers)']),
        ('cts', without('mean', 'std'), ['--head', 'mean (--normalization)', 'std']),
        ('cts', {**without('decoder'), 'head': 'mask_transformer'}, ['--decoder-heads']),
    ],
)
def test_what_is_missing_is_listed(source, declared, listed) -> None:
    with pytest.raises(ModelSpecError, match='what weights do not tell') as info:
        converted_spec(source, 'm', declared, False)
    assert all(item in str(info.value) for item in listed), info.value


def test_unknown_fields_are_errors() -> None:
    with pytest.raises(ModelSpecError, match='nope'):
        converted_spec('dtop', 'm', {**DECLARED, 'nope': 1}, False)


def test_encoder_backbone() -> None:
    assert encoder_backbone({'backbone': 'vit_tiny'}) == Backbone(192, 12, 3)
    assert encoder_backbone({'backbone': {'preset': 'vit_tiny', 'depth': 6}}).depth == 6
    with pytest.raises(ModelSpecError, match='--backbone'):
        encoder_backbone({})


@pytest.mark.parametrize(
    'name, text, expected',
    [
        ('c.txt', 'wall\nfloor, flooring\n', [{'name': 'wall'}, {'name': 'floor, flooring'}]),
        ('c.txt', 'wall\r\nfloor\r\n\n\n', [{'name': 'wall'}, {'name': 'floor'}]),
        ('c.yaml', '- wall\n- floor\n', [{'name': 'wall'}, {'name': 'floor'}]),
        ('c.yaml', 'name: m\nclasses: [{name: wall, color: [1, 2, 3]}]', [{'name': 'wall', 'color': [1, 2, 3]}]),
        ('c.txt', 'wall\n\nfloor\n', 'line 2 is empty'),
        ('c.txt', '', 'line 1|expected a list'),
        ('c.yaml', 'name: m', 'expected a list of classes'),
        ('c.yaml', '[', 'c.yaml'),
    ],
)
def test_classes(tmp_path: Path, name, text, expected) -> None:
    (tmp_path / name).write_text(text, encoding='utf-8')
    if isinstance(expected, list):
        assert read_classes(tmp_path / name) == expected
        return
    with pytest.raises(ModelSpecError, match=expected):
        read_classes(tmp_path / name)


@pytest.mark.parametrize(
    'text, complaint', [('- 1', 'expected a mapping'), ('decoder: 3', 'decoder: expected a mapping')]
)
def test_spec_file(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / 's.yaml').write_text(text)
    with pytest.raises(ModelSpecError, match=complaint):
        read_spec(tmp_path / 's.yaml')
    for read in (read_spec, read_classes):
        with pytest.raises(FileNotFoundError, match='no such file'):
            read(tmp_path / 'none.yaml')
