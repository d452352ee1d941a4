"""Converted checkpoints of the official code reproduce its outputs; what does not fit, or is not told, is listed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from foreign_checkpoints import (
    converted,
    mmseg_atm,
    mmseg_vit,
    policy_network,
    prefixed,
    save_mmseg,
    seeded_encoder,
    write_spec,
)
from golden import Golden, assert_close, golden_files, weights_by_recipe
from tiny_model import tiny_spec

from hybrid_seg_ros.export.convert_model import convert_model, converted_spec, encoder_backbone, grid_of
from hybrid_seg_ros.model_spec import Backbone, Decoder, ModelSpecError, TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import SegVitHead
from hybrid_seg_ros.network.checkpoint import CheckpointError, load_strictly
from hybrid_seg_ros.network.encoder_weights import without_unused_prefix_tokens
from hybrid_seg_ros.network.merge_policy import window_scores
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.token_heads import MaskTransformerHead
from hybrid_seg_ros.network.token_layout import TokenLayout
from hybrid_seg_ros.network.token_merging import choose_windows

POLICY_TOLERANCE = 2e-5  # as in test_conformance.py


def reference_files(kind: str, output: str = '') -> list:
    """List the reference files of a kind that hold an output."""
    files = [path for path in golden_files() if path.name.startswith(kind)]
    return [pytest.param(path, id=path.stem) for path in files if not output or output in Golden.read(path).outputs]


def policy_by_recipe(golden: Golden) -> dict[str, torch.Tensor]:
    """Return the policy network's weights under CTS's names, which are timm's and ours."""
    return weights_by_recipe(policy_network('timm'), golden.meta['seed'])


def tiny_dtop(**overrides) -> tuple:
    """Return a spec, a random model of it, and the model's weights under DToP's names."""
    torch.manual_seed(1)
    spec = tiny_spec(policy='none', variant=Variant(), **overrides)
    model = HybridSegmenter(spec).eval()
    state = {
        **prefixed('backbone.', mmseg_vit(model.encoder.state_dict())),
        **prefixed('decode_head.', mmseg_atm(model.head.state_dict())),
        **prefixed('auxiliary_head.0.', mmseg_atm(model.auxiliary_heads['6'].state_dict())),
        **prefixed('auxiliary_head.1.', mmseg_atm(model.auxiliary_heads['8'].state_dict())),
    }
    return spec, model, state


@pytest.mark.parametrize('path', reference_files('a'))
@torch.no_grad()
def test_segvit_head_as_published(path: Path, tmp_path: Path) -> None:
    golden = Golden.read(path)
    meta = golden.meta
    backbone = Backbone(meta['dim'], meta['use_stages'], 4)
    encoder = seeded_encoder(backbone, (meta['img'] // 16, meta['img'] // 16))
    state = {**prefixed('backbone.', mmseg_vit(encoder.state_dict())), **prefixed('decode_head.', golden.state)}
    spec = write_spec(
        tmp_path / 'spec.yaml', meta['ncls'], meta['img'], backbone=dataclasses.asdict(backbone),
        head='segvit_atm' if meta['self_attention'] else 'segvit_atm_v2',
        auxiliary_layers=list(range(1, meta['use_stages'])),
        decoder={'dim': meta['emb'], 'layers': meta['layers'], 'num_heads': meta['heads']},
    )  # fmt: skip
    model = converted('segvit', save_mmseg(tmp_path / 'iter_1.pth', state), spec)
    for key, value in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[key], value), key
    features = [golden.inputs[f'feat{index}'] for index in range(meta['use_stages'])]
    prediction = model.head([feature.flatten(2).transpose(1, 2) for feature in features])
    masks = prediction.mask_logits.unflatten(2, features[-1].shape[2:])
    masks = F.interpolate(masks, size=(meta['img'], meta['img']), mode='bilinear', align_corners=False)
    pred = torch.einsum('bqc,bqhw->bchw', model.head.class_mix(prediction.class_logits), masks.sigmoid())
    assert_close(pred, golden.outputs['pred'])


@pytest.mark.parametrize('path', reference_files('b'))
@torch.no_grad()
def test_mmseg_backbone_as_published(path: Path, tmp_path: Path) -> None:
    golden = Golden.read(path)
    meta = golden.meta
    layers = [index + 1 for index in meta['out']]
    inner = [layer for layer in layers if layer < meta['depth']]
    head = SegVitHead(meta['dim'], 5, meta['dim'] // 2, 1, 2, len(inner) + 1)
    state = {**prefixed('backbone.', golden.state), **prefixed('decode_head.', mmseg_atm(head.state_dict()))}
    backbone = {
        'embed_dim': meta['dim'], 'depth': meta['depth'], 'num_heads': meta['heads'], 'patch_size': meta['patch'],
        'layer_norm_eps': meta['norm_eps'], 'class_token': meta['cls'], 'final_norm': meta['final_norm'],
    }  # fmt: skip
    spec = write_spec(tmp_path / 'spec.yaml', 5, meta['img'], backbone=backbone, auxiliary_layers=inner,
                      decoder={'layers': 1, 'num_heads': 2})
    encoder = converted('segvit', save_mmseg(tmp_path / 'iter_1.pth', state), spec).encoder
    image = golden.inputs['img']
    grid = (-(-image.shape[2] // meta['patch']), -(-image.shape[3] // meta['patch']))
    layer, tokens = 0, encoder.embed(image, TokenLayout.identity(image.shape[0], grid, image.device))
    for index, next_layer in enumerate(layers):
        tokens = encoder.run(tokens, layer + 1, next_layer)
        layer = next_layer
        seen = encoder.finish(tokens) if layer == meta['depth'] else tokens[:, encoder.num_prefix_tokens :]
        assert_close(seen.transpose(1, 2).unflatten(2, grid), golden.outputs[f'feat{index}'])


@pytest.mark.parametrize('path', reference_files('c', 'final_pred_lowres'))
@torch.no_grad()
def test_dtop_as_published(path: Path, tmp_path: Path) -> None:
    golden = Golden.read(path)
    model = converted('dtop', save_mmseg(tmp_path / 'iter_1.pth', golden.state), dtop_spec(golden, tmp_path))
    assert model.spec.variant == Variant(prune_layers=model.spec.auxiliary_layers)
    budget = TokenBudget(threshold=golden.meta['thresh'], keep_per_class=golden.meta['topk'])
    output = model(golden.inputs['img'], model.spec.variant, budget)
    assert_close(output.scores.flatten(2), golden.outputs['final_pred_lowres'])
    assert [stage.alive.counts().tolist() for stage in output.stages] == golden.meta['kept_per_stage']


@pytest.mark.parametrize('policy_path', reference_files('e_policynet_det'))
@pytest.mark.parametrize('path', reference_files('d', 'linear_logits'))
@pytest.mark.parametrize('separate', [False, True])
@torch.no_grad()
def test_cts_as_published(path: Path, policy_path: Path, separate: bool, tmp_path: Path) -> None:
    golden, policy_golden = Golden.read(path), Golden.read(policy_path)
    meta, out = golden.meta, golden.outputs
    state = {key.replace('enc.', 'encoder.').replace('dec.', 'decoder.'): value for key, value in golden.state.items()}
    policy = policy_by_recipe(policy_golden)
    options = []
    if separate:
        torch.save(prefixed('module.', policy), tmp_path / 'model.pth')
        options = ['--policy', tmp_path / 'model.pth', '--policy-key-prefix', 'module.']
    else:
        state.update(prefixed('policy_net.', policy))
    torch.save({'model': state, 'n_cls': meta['ncls'], 'epoch': 3}, tmp_path / 'checkpoint.pth')
    backbone = {'embed_dim': meta['dim'], 'depth': meta['depth'], 'num_heads': meta['heads']}
    spec = write_spec(tmp_path / 'spec.yaml', meta['ncls'], meta['img'], backbone=backbone, head='linear')
    model = converted('cts', tmp_path / 'checkpoint.pth', spec, *options)
    assert model.spec.variant == Variant(merges=True)
    image, grid_hw = golden.inputs['img'], model.encoder.grid_hw
    scores = window_scores({2: golden.inputs['policy_logits']}, grid_hw)[2].numpy()
    layout = TokenLayout.of(choose_windows({2: scores}, {2: meta['sched'][1]}, grid_hw), image.device)
    output = model(image, model.spec.variant, TokenBudget(), layout=layout)
    assert_close(output.scores, out['linear_logits'])
    logits = model.policy(policy_golden.inputs['img'], policy_golden.inputs['img'])[2]
    assert_close(logits, policy_golden.outputs['logits'], POLICY_TOLERANCE)


@pytest.mark.parametrize('path', reference_files('c', 'final_pred_lowres')[:1])
@torch.no_grad()
def test_dtop_with_the_policy_network_of_cts_runs_the_hybrid(path: Path, tmp_path: Path) -> None:
    golden = Golden.read(path)
    torch.save(policy_network('timm').state_dict(), tmp_path / 'policy.pth')
    file = save_mmseg(tmp_path / 'iter_1.pth', golden.state)
    model = converted('dtop', file, dtop_spec(golden, tmp_path), '--policy', tmp_path / 'policy.pth')
    assert model.spec.trunk_convention == 'timm'
    hybrid = Variant(merges=True, prune_layers=model.spec.auxiliary_layers)
    assert model(golden.inputs['img'], hybrid, TokenBudget(threshold=0.6)).layout.num_tokens < 64


def test_mask_transformer_of_cts() -> None:
    torch.manual_seed(0)
    backbone = Backbone(24, 2, 3, class_token=True, final_norm=True)
    spec = tiny_spec(backbone=backbone, policy='none', head='mask_transformer', auxiliary_layers=(),
                     variant=Variant())
    encoder, head = seeded_encoder(backbone, (6, 8)).state_dict(), MaskTransformerHead(24, 11, 2, 3).state_dict()
    state = {**prefixed('encoder.', encoder), 'encoder.head.weight': torch.zeros(9, 24),
             **prefixed('decoder.', head), 'policy_net.head.bias': torch.zeros(2)}
    model = HybridSegmenter(spec)
    load_strictly(model, convert_model('cts', state, spec, (96, 128)), 'test')
    for part, expected in ((model.encoder, encoder), (model.head, head)):
        for key, value in part.state_dict().items():
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize('size_hw', [(96, 128), (128, 96), (64, 160)])
def test_position_embedding_is_resized(size_hw: tuple[int, int]) -> None:
    source_hw = (128, 96)
    spec, model, state = tiny_dtop(input_size_hw=source_hw)
    target = dataclasses.replace(spec, input_size_hw=size_hw)
    result = convert_model('dtop', state, target, source_hw)
    load_strictly(HybridSegmenter(target), result, 'test')
    before = model.encoder.pos_embed.detach().reshape(1, 8, 6, -1).permute(0, 3, 1, 2)
    grid_hw = (size_hw[0] // 16, size_hw[1] // 16)
    after = F.interpolate(before, size=grid_hw, mode='bicubic', align_corners=False)
    assert_close(result['encoder.pos_embed'], after.permute(0, 2, 3, 1).reshape(1, -1, 24), 1e-6)


def test_class_token_keeps_its_position() -> None:
    backbone = Backbone(24, 12, 3, class_token=True)
    spec, model, state = tiny_dtop(backbone=backbone, input_size_hw=(64, 64))
    result = convert_model('dtop', state, dataclasses.replace(spec, input_size_hw=(96, 128)))
    assert result['encoder.pos_embed'].shape == (1, 1 + 6 * 8, 24)
    assert torch.equal(result['encoder.pos_embed'][:, 0], model.encoder.pos_embed[:, 0])
    assert torch.equal(result['encoder.cls_token'], model.encoder.cls_token)


@pytest.mark.parametrize(
    'count, size_hw, target_hw, expected',
    [
        (576, None, None, (24, 24)),
        (576, (384, 384), (24, 30), (24, 24)),
        (576, (288, 512), None, (18, 32)),
        (48, (96, 128), None, (6, 8)),
        (400, None, (20, 20), (20, 20)),
        (400, (256, 400), (16, 25), (16, 25)),
        (48, None, (6, 8), 'give the image size'),
        (400, None, (16, 25), 'give the image size'),
        (577, None, None, 'give the image size'),
        (576, (384, 400), None, 'expected 24x25 entries'),
        (576, (390, 384), None, 'images of 390x384'),
    ],
)
def test_source_grid(count, size_hw, target_hw, expected) -> None:
    if isinstance(expected, tuple):
        assert grid_of(count, 16, size_hw, target_hw) == expected
        return
    with pytest.raises(CheckpointError, match=expected):
        grid_of(count, 16, size_hw, target_hw)


def change(state: dict, **changes) -> dict:
    """Return the state with keys replaced; None takes a key away. Dots are written __ in names."""
    changes = {key.replace('__', '.'): value for key, value in changes.items()}
    return {key: value for key, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    'changes, listed',
    [
        ({'decode_head__q__weight': None}, ['missing head.query.weight']),
        ({'backbone__pos_embed': None}, ['missing encoder.pos_embed']),
        ({'decode_head__q__weight': torch.zeros(9, 12)}, [r'head.query.weight: expected shape \(11, 12\), got']),
        ({'backbone__dist_token': torch.zeros(1)}, [r'unexpected backbone.dist_token \(unknown to dtop\)']),
        ({'backbone__ln1__weight': torch.zeros(24)}, ['unexpected encoder.norm.weight']),
        ({'auxiliary_head__2__q__weight': torch.zeros(1)}, [r'unexpected auxiliary_head.2.q.weight \(unknown']),
        ({'encoder__pos_embed': torch.zeros(1)}, [r'unexpected encoder.pos_embed \(unknown to dtop']),
        (
            {'auxiliary_head__1__q__weight': None, 'x': torch.zeros(1), 'backbone__cls_token': None,
             'backbone__patch_embed__projection__bias': torch.zeros(3)},
            ['missing auxiliary_heads.8.query.weight', 'unexpected x', 'encoder.patch_embed.proj.bias: expected'],
        ),
    ],
)  # fmt: skip
def test_all_that_does_not_fit_is_listed(changes: dict, listed: list[str]) -> None:
    spec, _, state = tiny_dtop()
    if 'backbone__cls_token' in changes:  # then there is no position for it either
        changes = {**changes, 'backbone__pos_embed': state['backbone.pos_embed'][:, 1:]}
    with pytest.raises(CheckpointError) as error:
        load_strictly(HybridSegmenter(spec), convert_model('dtop', change(state, **changes), spec, (96, 128)), 'FILE')
    for line in listed:
        assert error.match(line)
    assert str(error.value).startswith('FILE: does not fit') and str(error.value).count('\n') == len(listed)


def test_policy_network_is_there_once() -> None:
    spec, _, state = tiny_dtop()
    hybrid = dataclasses.replace(spec, policy='efficientnet_lite0')
    with pytest.raises(CheckpointError, match='no policy network'):
        convert_model('dtop', state, hybrid, (96, 128))
    policy = policy_network('tensorflow').state_dict()
    with pytest.raises(CheckpointError, match='policy network of its own'):
        convert_model('cts', prefixed('policy_net.', policy), hybrid, (96, 128), policy)


@pytest.mark.parametrize('source', ['timm', 'nope'])
def test_unknown_source(source: str) -> None:
    with pytest.raises(CheckpointError, match='legal are segvit, dtop, cts'):
        convert_model(source, {}, tiny_spec())


def test_used_class_token_stays() -> None:
    state = {'cls_token': torch.ones(1, 1, 2), 'pos_embed': torch.arange(6.0).reshape(1, 3, 2)}
    assert set(without_unused_prefix_tokens(state, Backbone(2, 1, 1, class_token=True))) == set(state)
    without = without_unused_prefix_tokens(state, Backbone(2, 1, 1))
    assert set(without) == {'pos_embed'} and without['pos_embed'].tolist() == [[[2.0, 3.0], [4.0, 5.0]]]
    assert set(state) == {'cls_token', 'pos_embed'} and state['pos_embed'].shape[1] == 3


def dtop_spec(golden: Golden, folder: Path) -> Path:
    """Write the spec of a reference file of DToP."""
    meta = golden.meta
    return write_spec(
        folder / 'spec.yaml', meta['ncls'], meta['img'],
        backbone={'embed_dim': meta['dim'], 'depth': meta['depth'], 'num_heads': meta['heads']},
        decoder={'dim': meta['ch'], 'layers': meta['layers'], 'num_heads': meta['hheads']},
        auxiliary_layers=[index + 1 for index in meta['out'][:-1]],
    )  # fmt: skip


DECLARED = {
    'backbone': 'vit_base', 'classes': [{'name': 'wall'}, {'name': 'floor'}], 'input_size_hw': [512, 512],
    'mean': [127.5] * 3, 'std': [127.5] * 3, 'auxiliary_layers': [6, 8], 'decoder': {'num_heads': 12},
}  # fmt: skip


def without(*keys: str) -> dict:
    return {key: value for key, value in DECLARED.items() if key not in keys}


def test_spec_of_segvit() -> None:
    spec = converted_spec('segvit', 'm', DECLARED, False)
    assert (spec.head, spec.policy, spec.variant) == ('segvit_atm', 'none', Variant())
    assert spec.backbone == Backbone(768, 12, 12) and spec.decoder == Decoder(num_heads=12) and spec.decoder_dim == 384


def test_spec_of_dtop() -> None:
    spec = converted_spec('dtop', 'm', DECLARED, False)
    assert spec.head == 'atm' and str(spec.variant) == 'dtop@6+8'
    assert spec.legal_variants() == ('dense', 'dtop@6+8', 'dtop@8')
    spec = converted_spec('dtop', 'm', {**DECLARED, 'variant': 'hybrid@8'}, True)
    assert str(spec.variant) == 'hybrid@8' and (spec.policy, spec.trunk_convention) == ('efficientnet_lite0', 'timm')


@pytest.mark.parametrize('head', ['linear', 'mask_transformer'])
def test_spec_of_cts(head: str) -> None:
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
