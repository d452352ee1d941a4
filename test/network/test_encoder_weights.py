"""Encoder weights to start training from: saved with their grid, fitted to the model that takes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from foreign_checkpoints import seeded_encoder
from golden import assert_close
from safetensors.torch import save_file
from tiny_model import tiny_spec

from hybrid_seg_ros.model_spec import Backbone, Variant
from hybrid_seg_ros.network.checkpoint import CheckpointError
from hybrid_seg_ros.network.encoder_weights import CONTENT, load_encoder, save_encoder
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.vit import VisionTransformer

CLASSIFIER = Backbone(24, 12, 3, class_token=True, final_norm=True)
GRID_HW = (6, 4)


def tiny_model(**backbone) -> HybridSegmenter:
    """Return a model for 96x128, without the policy network."""
    return HybridSegmenter(
        tiny_spec(backbone=Backbone(24, 12, 3, **backbone), policy='none', variant=Variant())
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_encoder(seeded_encoder(CLASSIFIER, GRID_HW), tmp_path / 'e.safetensors')
    return tmp_path / 'e.safetensors'


@pytest.mark.parametrize('class_token', [False, True])
@pytest.mark.parametrize('final_norm', [False, True])
def test_fits_models_with_and_without_class_token_and_norm(file: Path, class_token: bool, final_norm: bool) -> None:
    expected = seeded_encoder(CLASSIFIER, GRID_HW).state_dict()
    model = tiny_model(class_token=class_token, final_norm=final_norm)
    heads = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith('encoder.')}
    load_encoder(model, file)
    prefix, grid = expected.pop('pos_embed').split([1, 24], 1)
    image = grid.reshape(1, *GRID_HW, 24).permute(0, 3, 1, 2)
    grid = F.interpolate(image, size=(6, 8), mode='bicubic', align_corners=False).permute(0, 2, 3, 1).reshape(1, 48, 24)
    assert_close(model.encoder.pos_embed, torch.cat([prefix, grid], 1) if class_token else grid, 1e-6)
    loaded = model.encoder.state_dict()
    assert set(loaded) - set(expected) == {'pos_embed'}
    assert ('cls_token' in loaded) == class_token and ('norm.weight' in loaded) == final_norm
    assert all(torch.equal(loaded[key], value) for key, value in expected.items() if key in loaded)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in heads.items())


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    encoder = seeded_encoder(Backbone(24, 11, 3), GRID_HW)
    encoder.register_buffer('extra', torch.ones(1))
    save_encoder(encoder, tmp_path / 'e.safetensors')
    with pytest.raises(CheckpointError) as info:
        load_encoder(tiny_model(class_token=True), tmp_path / 'e.safetensors')
    listed = ('missing blocks.11.norm1.weight', 'missing cls_token', r'unexpected extra \(1,\)', 'pos_embed: expected')
    for line in listed:
        assert info.match(line)


def test_other_files_are_refused(tmp_path: Path, file: Path) -> None:
    model = tiny_model()
    with pytest.raises(FileNotFoundError, match='no such file'):
        load_encoder(model, tmp_path / 'none.safetensors')
    save_file({'a': torch.ones(1)}, tmp_path / 'a.safetensors')
    with pytest.raises(CheckpointError, match='hybrid_seg convert'):
        load_encoder(model, tmp_path / 'a.safetensors')
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match='damaged'):
        load_encoder(model, file)


WIDE = Backbone(48, 14, 6, class_token=True, register_tokens=2, final_norm=True)


@pytest.mark.parametrize('backbone', [{}, {'class_token': True, 'final_norm': True}], ids=str)
def test_channels_and_heads_of_a_wider_encoder(tmp_path: Path, backbone: dict) -> None:
    """Every second channel, wherever it comes from; heads 0, 2 and 4, whole; the first 12 of 14 layers."""
    wide = seeded_encoder(WIDE, GRID_HW)
    save_encoder(wide, tmp_path / 'wide.safetensors')
    model = tiny_model(**backbone)
    load_encoder(model, tmp_path / 'wide.safetensors', selecting=True)
    theirs, found = wide.state_dict(), model.encoder.state_dict()
    channels, hidden = slice(0, 48, 2), slice(0, 192, 2)
    heads = [channel for head in (0, 2, 4) for channel in range(8 * head, 8 * head + 8)]
    assert torch.equal(found['patch_embed.proj.weight'], theirs['patch_embed.proj.weight'][channels])
    assert torch.equal(found['patch_embed.proj.bias'], theirs['patch_embed.proj.bias'][channels])
    for layer in range(12):
        ours = {key: found[f'blocks.{layer}.{key}'] for key in (
            'attn.qkv.weight', 'attn.qkv.bias', 'attn.proj.weight', 'attn.proj.bias', 'mlp.fc1.weight', 'mlp.fc1.bias',
            'mlp.fc2.weight', 'mlp.fc2.bias', 'norm1.weight', 'norm1.bias', 'norm2.weight', 'norm2.bias',
        )}  # fmt: skip
        whole = {key: theirs[f'blocks.{layer}.{key}'] for key in ours}
        for part, weight, bias in zip(range(3), whole['attn.qkv.weight'].chunk(3), whole['attn.qkv.bias'].chunk(3)):
            rows = slice(24 * part, 24 * part + 24)
            assert torch.equal(ours['attn.qkv.weight'][rows], weight[heads][:, channels])
            assert torch.equal(ours['attn.qkv.bias'][rows], bias[heads])
        assert torch.equal(ours['attn.proj.weight'], whole['attn.proj.weight'][channels][:, heads])
        assert torch.equal(ours['mlp.fc1.weight'], whole['mlp.fc1.weight'][hidden][:, channels])
        assert torch.equal(ours['mlp.fc1.bias'], whole['mlp.fc1.bias'][hidden])
        assert torch.equal(ours['mlp.fc2.weight'], whole['mlp.fc2.weight'][channels][:, hidden])
        for key in ('attn.proj.bias', 'mlp.fc2.bias', 'norm1.weight', 'norm1.bias', 'norm2.weight', 'norm2.bias'):
            assert torch.equal(ours[key], whole[key][channels])
    for key in ('norm.weight', 'norm.bias'):
        assert (key in found) == bool(backbone) and (key not in found or torch.equal(found[key], theirs[key][channels]))
    reference = tiny_model(**backbone)  # positions are resized channel by channel
    theirs_narrow = VisionTransformer(dataclasses.replace(WIDE, embed_dim=24, num_heads=3, depth=12), GRID_HW)
    narrow = {**theirs_narrow.state_dict(), 'pos_embed': theirs['pos_embed'][..., channels]}
    theirs_narrow.load_state_dict(narrow)
    save_encoder(theirs_narrow, tmp_path / 'narrow.safetensors')
    load_encoder(reference, tmp_path / 'narrow.safetensors')
    assert_close(model.encoder.pos_embed, reference.encoder.pos_embed, 1e-6)


def test_an_encoder_of_the_same_width_is_taken_whole(file: Path) -> None:
    models = [tiny_model(class_token=True, final_norm=True) for _ in range(2)]
    for model, selecting in zip(models, (False, True)):
        load_encoder(model, file, selecting)
    first, second = (model.encoder.state_dict() for model in models)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize(('backbone', 'selecting', 'message'), [
    (Backbone(16, 12, 2), True, 'expected at least 24 channels in heads of 8, got 16'),
    (Backbone(48, 12, 3), True, 'expected heads of 8 channels, got 3 heads in 48 channels'),
    (Backbone(44, 12, 2), True, 'expected heads of 8 channels, got 2 heads in 44 channels'),
    (Backbone(24, 12, 2), True, 'expected heads of 8 channels, got 2 heads in 24 channels'),
    (Backbone(24, 12, 2), False, 'expected heads of 8 channels, got 2 heads in 24 channels'),
    (Backbone(48, 12, 6), False, r'patch_embed.proj.weight: expected shape \(24, 3, 16, 16\)'),
    (Backbone(48, 11, 6), True, 'missing blocks.11.attn.qkv.weight'),
])  # fmt: skip
def test_encoders_that_no_channels_are_selected_from(
    tmp_path: Path, backbone: Backbone, selecting: bool, message: str
) -> None:
    save_encoder(seeded_encoder(backbone, GRID_HW), tmp_path / 'e.safetensors')
    model = tiny_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_encoder(model, tmp_path / 'e.safetensors', selecting)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_files_that_do_not_say_their_heads_are_taken(tmp_path: Path) -> None:
    """Unless channels show that they cannot be as wide."""
    for width, heads in ((48, 6), (44, 2)):
        state = seeded_encoder(Backbone(width, 12, heads), GRID_HW).state_dict()
        save_file(state, tmp_path / f'{width}.safetensors', {'content': CONTENT, 'grid_hw': '6 4'})
    load_encoder(tiny_model(), tmp_path / '48.safetensors', selecting=True)
    with pytest.raises(CheckpointError, match='in heads of 8, got 44'):
        load_encoder(tiny_model(), tmp_path / '44.safetensors', selecting=True)
