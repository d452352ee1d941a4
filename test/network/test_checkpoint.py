"""Our own format: what is saved is loaded, and what is damaged, missing or of another model is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_spec, write_tiny_model

from hybrid_seg_ros.model_spec import ModelSpec, Variant, sha256_of
from hybrid_seg_ros.network.checkpoint import (
    CheckpointError,
    load_model,
    load_strictly,
    resize_position_embedding,
    save_model,
)
from hybrid_seg_ros.network.segmenter import HybridSegmenter

SMALL = {'policy': 'none', 'variant': Variant()}
"""Without the policy network, whose weights are nearly all of the tiny model's."""


@pytest.fixture
def model_yaml(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path, **SMALL)


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = HybridSegmenter(tiny_spec(**SMALL))
    assert len({save_model(model, tmp_path / f'{index}.yaml').sha256 for index in range(6)}) == 1


def test_weights_and_specification_never_have_one_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='a.safetensors: expected a name that ends in .yaml'):
        save_model(HybridSegmenter(tiny_spec(**SMALL)), tmp_path / 'a.safetensors')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 0.0), (torch.float16, 1e-3)])
def test_a_saved_model_is_loaded(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(2)
    model = HybridSegmenter(tiny_spec())
    written = save_model(model, tmp_path / 'folder' / 'm.yaml', dtype)
    spec = ModelSpec.load(tmp_path / 'folder' / 'm.yaml')
    assert spec == written and spec.weights == 'm.safetensors' and spec.sha256 == sha256_of(spec.weights_path)
    assert sorted(path.name for path in (tmp_path / 'folder').iterdir()) == ['m.safetensors', 'm.yaml']
    assert {value.dtype for value in load_file(spec.weights_path).values()} == {dtype}
    loaded = load_model(spec)
    assert not loaded.training
    weights = loaded.state_dict()
    for key, value in model.state_dict().items():
        difference = (weights[key].double() - value.double()).abs().max()
        assert weights[key].dtype == value.dtype and difference <= tolerance * value.abs().max(), key


@pytest.mark.parametrize(
    'damage, error, complaint',
    [
        (lambda path: path.unlink(), FileNotFoundError, 'does not exist'),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), CheckpointError, 'expected sha256'),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b'\x01'), CheckpointError, 'expected sha256'),
    ],
)
def test_damage_is_named(model_yaml: Path, damage, error, complaint) -> None:
    weights = model_yaml.with_suffix('.safetensors')
    damage(weights)
    with pytest.raises(error, match=complaint) as info:
        load_model(ModelSpec.load(model_yaml))
    assert str(weights) in str(info.value)


@pytest.mark.parametrize('length', [0, 7, 1000, -5])
def test_truncation_is_named_without_sha256_too(model_yaml: Path, length: int) -> None:
    weights = model_yaml.with_suffix('.safetensors')
    weights.write_bytes(weights.read_bytes()[:length])
    spec = dataclasses.replace(ModelSpec.load(model_yaml), sha256=None)
    with pytest.raises(CheckpointError, match='not a safetensors file') as info:
        load_model(spec)
    assert str(weights) in str(info.value)


def test_weights_of_another_model(model_yaml: Path) -> None:
    spec = ModelSpec.load(model_yaml)
    other = dataclasses.replace(spec, input_size_hw=(96, 160), auxiliary_layers=(4, 6))
    with pytest.raises(CheckpointError) as info:
        load_model(other)
    for line in ('missing auxiliary_heads.4.query.weight', 'unexpected auxiliary_heads.8.query.weight',
                 r'encoder.pos_embed: expected shape \(1, 60, 24\), got \(1, 48, 24\)'):
        assert info.match(line)
    with pytest.raises(CheckpointError, match='names no weights'):
        load_model(dataclasses.replace(spec, weights=None))


def test_batch_counters_are_no_weights() -> None:
    norm = torch.nn.BatchNorm2d(3)
    state = {key: value for key, value in norm.state_dict().items() if key != 'num_batches_tracked'}
    load_strictly(norm, {**state, 'weight': torch.full((3,), 2.0)}, 'FILE')
    assert norm.weight.tolist() == [2.0, 2.0, 2.0]
    load_strictly(norm, {**state, 'num_batches_tracked': torch.tensor(7)}, 'FILE')


def test_a_failed_load_changes_nothing() -> None:
    layer = torch.nn.Linear(2, 2)
    before = layer.weight.clone()
    with pytest.raises(CheckpointError, match=r'missing bias \(2,\)'):
        load_strictly(layer, {'weight': torch.ones(2, 2)}, 'FILE')
    assert torch.equal(layer.weight, before)


def test_weights_are_stored_whole_or_not_at_all(model_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sha256_of(model_yaml.with_suffix('.safetensors'))

    def full_disk(path, content):
        path.write_text('half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full_disk)
    with pytest.raises(OSError, match='No space'):
        save_model(HybridSegmenter(tiny_spec(**SMALL)), model_yaml)
    assert not list(model_yaml.parent.glob('*.partial'))
    assert sha256_of(model_yaml.with_suffix('.safetensors')) == before
    load_model(ModelSpec.load(model_yaml))


def test_unreadable_spec_of_weights_is_no_weights_file(tmp_path: Path) -> None:
    save_file({'a': torch.zeros(1)}, tmp_path / 'a.safetensors')
    with pytest.raises(CheckpointError, match=r'unexpected a \(1,\)'):
        load_model(tiny_spec(**SMALL, weights='a.safetensors', folder=tmp_path))


@pytest.mark.parametrize('prefix', [0, 1])
def test_position_embedding_same_grid_and_wrong_grid(prefix: int) -> None:
    pos_embed = torch.randn(1, prefix + 15, 4)
    assert torch.equal(resize_position_embedding(pos_embed, prefix, (3, 5), (3, 5)), pos_embed)
    resized = resize_position_embedding(pos_embed, prefix, (3, 5), (6, 7))
    assert resized.shape == (1, prefix + 42, 4) and torch.equal(resized[:, :prefix], pos_embed[:, :prefix])
    with pytest.raises(CheckpointError, match=f'expected {prefix + 16} entries'):
        resize_position_embedding(pos_embed, prefix, (4, 4), (3, 5))
