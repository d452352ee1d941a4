"""Every reference file of the official SegViT, DToP and CTS code must be reproduced (kinds a to f)."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_checkpoints import policy_network
from golden import Golden, assert_close, golden_dir, golden_files, weights_by_recipe

from hybrid_seg_ros.data.policy_labels import policy_labels
from hybrid_seg_ros.export.checkpoint_names import MMSEG_VIT, SEGMENTER_DECODER, TIMM_VIT, rename_atm, renamer
from hybrid_seg_ros.inference.backends.torch_backend import predictions
from hybrid_seg_ros.inference.sliding_window import CropPlan, average_crops, postprocess_crops, window_starts
from hybrid_seg_ros.label_space import UNLABELLED, LabelSpace, distinct_colors
from hybrid_seg_ros.model_spec import Backbone, Decoder, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import SegVitHead
from hybrid_seg_ros.network.encoder_weights import without_unused_prefix_tokens
from hybrid_seg_ros.network.merge_policy import window_scores
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.token_layout import TokenLayout
from hybrid_seg_ros.network.token_merging import choose_windows
from hybrid_seg_ros.network.vit import VisionTransformer
from hybrid_seg_ros.training.initial_model import load_imagenet_trunk, rename_lite0
from hybrid_seg_ros.training.losses import AtmLoss, atm_loss

# Weights by recipe grow the activations; the reference's own float32 rounding is then 1.2e-5 (against float64).
POLICY_TOLERANCE = 2e-5


def _labels(count: int) -> LabelSpace:
    return LabelSpace(tuple(f'class {index}' for index in range(count)), distinct_colors(count))


def check_a(golden: Golden) -> None:
    """SegViT's and DToP's multi-stage heads."""
    meta = golden.meta
    head = SegVitHead(
        meta['dim'], meta['ncls'], meta['emb'], meta['layers'], meta['heads'], meta['use_stages'],
        meta['self_attention'],
    ).eval()  # fmt: skip
    head.load_state_dict(golden.renamed(rename_atm))
    features = [golden.inputs[f'feat{index}'] for index in range(meta['use_stages'])]
    prediction = head([feature.flatten(2).transpose(1, 2) for feature in features])
    masks = prediction.mask_logits.unflatten(2, features[-1].shape[2:])
    masks = F.interpolate(masks, size=(meta['img'], meta['img']), mode='bilinear', align_corners=False)
    assert_close(prediction.class_logits, golden.outputs['pred_logits'])
    assert_close(masks, golden.outputs['pred_masks'])
    pred = torch.einsum('bqc,bqhw->bchw', head.class_mix(prediction.class_logits), masks.sigmoid())
    assert_close(pred, golden.outputs['pred'])


def check_b(golden: Golden) -> None:
    """The plain ViT: features after some layers."""
    meta = golden.meta
    grid = (meta['img'] // meta['patch'], meta['img'] // meta['patch'])
    config = Backbone(
        meta['dim'], meta['depth'], meta['heads'], meta['patch'], meta['norm_eps'], meta['cls'], meta['final_norm']
    )
    encoder = VisionTransformer(config, grid).eval()
    encoder.load_state_dict(without_unused_prefix_tokens(golden.renamed(renamer(MMSEG_VIT)), config))
    image = golden.inputs['img']
    grid = (-(-image.shape[2] // meta['patch']), -(-image.shape[3] // meta['patch']))
    layer, tokens = 0, encoder.embed(image, TokenLayout.identity(image.shape[0], grid, image.device))
    for index, out_index in enumerate(meta['out']):
        tokens = encoder.run(tokens, layer + 1, out_index + 1)
        layer = out_index + 1
        seen = encoder.finish(tokens) if layer == meta['depth'] else tokens[:, encoder.num_prefix_tokens :]
        assert_close(seen.transpose(1, 2).unflatten(2, grid), golden.outputs[f'feat{index}'])


def check_c(golden: Golden) -> None:
    """DToP whole: backbone, auxiliary heads, pruning; or, by its outputs, sliding-window inference with it."""
    meta = golden.meta
    model = _dtop_model(golden)
    layers = tuple(index + 1 for index in meta['out'][:-1])
    variant = Variant(prune_layers=layers)
    budget = TokenBudget(threshold=meta['thresh'], keep_per_class=meta.get('topk', 5))

    def probability(crop: torch.Tensor) -> torch.Tensor:
        scores = model(crop, variant, budget).scores
        return F.interpolate(scores, size=crop.shape[2:], mode='bilinear', align_corners=False)

    image = golden.inputs['img']
    if 'seg_logits' in golden.outputs:
        crop, stride, size_hw = meta['img'], meta['stride'], tuple(image.shape[2:])
        starts = [window_starts(side, crop, stride) for side in size_hw]
        plan = CropPlan(tuple(meta['ori_shape']), size_hw, crop, tuple((y, x) for y in starts[0] for x in starts[1]))
        crops = torch.cat([image[:, :, top : top + crop, left : left + crop] for top, left in plan.corners])
        predicted = predictions(model(crops, variant, budget), variant)
        averaged = average_crops(predicted, plan, range(size_hw[0]), range(size_hw[1]))
        assert_close(torch.from_numpy(averaged)[None], golden.outputs['seg_logits'], 5e-4)  # stored as float16
        labels, _ = postprocess_crops(predicted, plan, plan.image_hw)
        assert np.array_equal(labels[None], golden.outputs['pred_sem_seg'].numpy())
        return

    assert_close(probability(image), golden.outputs['pred'])
    tokens = {}
    hooks = [
        head.register_forward_pre_hook(lambda _, args, index=index: tokens.update({index: args[0]}))
        for index, head in enumerate([*model.auxiliary_heads.values(), model.head])
    ]
    output = model(image, variant, budget)
    for hook in hooks:
        hook.remove()
    before = torch.arange(output.layout.num_tokens).expand(image.shape[0], -1)
    for index, stage in enumerate(output.stages):
        assert_close(stage.class_logits, golden.outputs[f'stage{index}_pred_logits'])
        assert_close(stage.mask_logits, golden.outputs[f'stage{index}_canvas'])
        seen = torch.zeros(image.shape[0], output.layout.num_tokens + 1, meta['dim'])
        seen = seen.scatter(1, before[:, :, None].expand(-1, -1, meta['dim']), tokens[index])[:, :-1]
        assert_close(seen, golden.outputs[f'stage{index}_x'])
        left = (output.pruned_after_layer > 0) & (output.pruned_after_layer <= stage.layer)
        assert torch.equal(left, golden.outputs[f'stage{index}_batch_idx'].bool())
        before = stage.alive.index
        assert stage.alive.counts().tolist() == meta['kept_per_stage'][index]
    assert_close(output.scores.flatten(2), golden.outputs['final_pred_lowres'])


def check_d(golden: Golden) -> None:
    """CTS: windows, tokens, encoder, un-sharing; or, by its outputs, the policy network's labels."""
    if 'label' in golden.inputs:
        labels = golden.inputs['label'].numpy().copy()
        labels[labels == 0] = UNLABELLED
        assert np.array_equal(policy_labels(labels), golden.outputs['ade_default'])
        assert np.array_equal(policy_labels(labels, ignore_borders=False), golden.outputs['plain'])
        assert np.array_equal(policy_labels(labels, ignore_borders=False), golden.outputs['eval_gt'])
        without = policy_labels(labels, ignore_borders=False, share_unlabelled=False)
        assert np.array_equal(without, golden.outputs['no_group_ignore'])
        return
    meta, out = golden.meta, golden.outputs
    side = meta['img'] // meta['patch']
    backbone = Backbone(
        meta['dim'], meta['depth'], meta['heads'], meta['patch'], meta['layernorm_eps'], class_token=True,
        final_norm=True,
    )  # fmt: skip
    spec = ModelSpec(
        'golden', backbone, _labels(meta['ncls']), (meta['img'], meta['img']), head='linear', auxiliary_layers=()
    )
    model = HybridSegmenter(spec).eval()
    model.encoder.load_state_dict(golden.renamed(renamer(TIMM_VIT), 'enc.'))
    model.head.load_state_dict(golden.renamed(renamer(SEGMENTER_DECODER), 'dec.'))
    seen = {}
    hooks = [
        model.encoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.update(tokens_in=args[0])),
        model.encoder.norm.register_forward_hook(
            lambda _, args, result: seen.update(tokens_prenorm=args[0], tokens_out=result)
        ),
        model.encoder.patch_embed.register_forward_hook(lambda _, args, result: seen.update(patch_tokens=result)),
    ]
    image, grid_hw = golden.inputs['img'], (side, side)
    scores = window_scores({2: golden.inputs['policy_logits']}, grid_hw)[2].numpy()
    layout = TokenLayout.of(choose_windows({2: scores}, {2: meta['sched'][1]}, grid_hw), image.device)
    output = model(image, Variant(merges=True), TokenBudget(), layout=layout)
    for hook in hooks:
        hook.remove()
    for name, value in seen.items():
        assert_close(value, out[name])
    sizes = layout.window_sizes()
    index = layout.source - torch.where(sizes == 2, side * side, 0)  # among the windows of its size
    columns = torch.div(side, sizes, rounding_mode='floor')
    code = torch.stack([sizes, index // columns * sizes, index % columns * sizes], 2)
    assert_close(code, out['policy_code'])
    alone = layout.unmerge(sizes[:, :, None])[:, :, 0] == 1
    assert torch.equal(alone, out['sel_msk_unshared'].flatten(1))
    assert_close(output.scores, out['linear_logits'])
    unshared = output.layout.unmerge(seen['tokens_out'][:, 1:])
    assert_close(unshared.transpose(1, 2).unflatten(2, (side, side)), out['unshared'])


def check_e(golden: Golden) -> None:
    """The policy network in both conventions."""
    image = golden.inputs['img']
    network = policy_network('timm')
    if 'recipe' in golden.meta:
        network.load_state_dict(weights_by_recipe(network, golden.meta['seed']), strict=False)
        checksums = [
            [tensor.double().sum().item(), tensor.double().abs().sum().item()]
            for key, tensor in sorted(network.state_dict().items())
            if not key.endswith('num_batches_tracked')
        ]
        assert_close(torch.tensor(checksums), golden.outputs['weight_checksums'])
        networks = {'': network}
    else:
        networks = {'': network, '_tf': policy_network('tensorflow')}
        for net in networks.values():
            load_imagenet_trunk(net.backbone)
            net.head.load_state_dict({key.split('.', 1)[1]: value for key, value in golden.state.items()})
    for suffix, net in networks.items():
        features: list[torch.Tensor] = []  # the last ones of strides 4, 8, 16 and 32
        blocks = [net.backbone.blocks[stage] for stage in ('1', '2', '4', '6')]
        hooks = [block.register_forward_hook(lambda _, args, out, seen=features: seen.append(out)) for block in blocks]
        logits = net(image, image)[2]
        for hook in hooks:
            hook.remove()
        for index, found in enumerate(features, start=1):
            if f'feat{index}{suffix}' in golden.outputs:
                assert_close(found, golden.outputs[f'feat{index}{suffix}'], POLICY_TOLERANCE)
        assert_close(logits, golden.outputs[f'logits{suffix}'], POLICY_TOLERANCE)


def check_f(golden: Golden) -> None:
    """The ATM loss of SegViT (with its auxiliary outputs) and of DToP."""
    labels = golden.inputs['label']
    for prefix, suffix in (('', ''), ('aux0_', '_0'), ('aux1_', '_1')):
        if f'{prefix}pred_logits' in golden.inputs:
            loss = atm_loss(golden.inputs[f'{prefix}pred_logits'], golden.inputs[f'{prefix}pred_masks'], labels)
            for name, term in zip(('loss_ce', 'loss_mask', 'loss_dice'), dataclasses.fields(AtmLoss)):
                assert_close(getattr(loss, term.name), golden.outputs[name + suffix])


CHECKS: dict[str, Callable[[Golden], None]] = {
    'a': check_a, 'b': check_b, 'c': check_c, 'd': check_d, 'e': check_e, 'f': check_f,
}  # fmt: skip


def _kind(path: Path) -> str:
    match = re.match(r'([a-z]+)\d*_', path.name)
    return match[1] if match else path.stem


def test_there_are_reference_files() -> None:
    assert golden_files(), f'no *.npz in {golden_dir()}'


def test_knows_the_keys_of_the_imagenet_weights() -> None:
    for path in golden_dir().glob('*keymap.json'):
        for foreign, ours in json.loads(path.read_text(encoding='utf-8')).items():
            assert rename_lite0(foreign) in (ours, None), foreign


@pytest.mark.parametrize('path', golden_files(), ids=lambda path: path.stem)
@torch.no_grad()
def test_reproduces_official_output(path: Path) -> None:
    kind = _kind(path)
    assert kind in CHECKS, f'{path}: unknown kind {kind!r}; known are {sorted(CHECKS)}'
    CHECKS[kind](Golden.read(path))


def _dtop_model(golden: Golden) -> HybridSegmenter:
    meta = golden.meta
    spec = ModelSpec(
        name='golden',
        backbone=Backbone(meta['dim'], meta['depth'], meta['heads'], meta.get('patch', 16)),
        classes=_labels(meta['ncls']),
        input_size_hw=(meta['img'], meta['img']),
        policy='none',
        decoder=Decoder(meta['ch'], meta['layers'], meta['hheads']),
        auxiliary_layers=tuple(index + 1 for index in meta['out'][:-1]),
    )
    model = HybridSegmenter(spec).eval()
    state = golden.renamed(renamer(MMSEG_VIT), 'backbone.')
    model.encoder.load_state_dict(without_unused_prefix_tokens(state, spec.backbone))
    model.head.load_state_dict(golden.renamed(rename_atm, 'decode_head.'))
    for index, head in enumerate(model.auxiliary_heads.values()):
        head.load_state_dict(golden.renamed(rename_atm, f'auxiliary_head.{index}.'))
    return model
