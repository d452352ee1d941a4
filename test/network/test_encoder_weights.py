"""Encoder weights to start training from: saved with their grid, fitted to the model that takes them."""

from __future__ import annotations

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


@pytest.mark.parametrize(('backbone', 'message'), [
    (Backbone(48, 12, 3), 'expected heads of 8 channels, got 3 heads in 48 channels'),
    (Backbone(24, 12, 2), 'expected heads of 8 channels, got 2 heads in 24 channels'),
    (Backbone(48, 12, 6), r'patch_embed.proj.weight: expected shape \(24, 3, 16, 16\)'),
    (Backbone(24, 11, 3), 'missing blocks.11.attn.qkv.weight'),
])  # fmt: skip
def test_encoders_of_another_shape_are_refused(tmp_path: Path, backbone: Backbone, message: str) -> None:
    save_encoder(seeded_encoder(backbone, GRID_HW), tmp_path / 'e.safetensors')
    model = tiny_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_encoder(model, tmp_path / 'e.safetensors')
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_files_that_do_not_say_their_heads_are_taken(tmp_path: Path) -> None:
    state = seeded_encoder(Backbone(24, 12, 3), GRID_HW).state_dict()
    save_file(state, tmp_path / 'e.safetensors', {'content': CONTENT, 'grid_hw': '6 4'})
    load_encoder(tiny_model(), tmp_path / 'e.safetensors')
