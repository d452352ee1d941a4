"""Models with random weights, as spread as a trained model's, and models at other sizes, which stay the same models."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_model import tiny_spec, write_lively_model

from hybrid_seg_ros.data.ade20k import ADE20K_CLASSES
from hybrid_seg_ros.evaluation.benchmark.models import TRAINED_SPREAD, at_size, write_at_size, write_random_model
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.model_spec import BACKBONES, Backbone, ModelSpec, ModelSpecError, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.token_merging import count_merged_windows

STREET = street_scene((96, 128))
PATCH = {'policy': 'patch_mlp', 'auxiliary_head': 'light'}


def test_a_seed_repeats_the_weights_and_disturbs_nothing(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    digests = [write_random_model(tiny_spec(**PATCH), tmp_path / f'{index}' / 'm.yaml', STREET, seed).sha256
               for index, seed in enumerate((0, 0, 1))]  # fmt: skip
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize('overrides', [PATCH, {}, {'head': 'linear', 'variant': Variant(), **PATCH}], ids=str)
def test_a_pipeline_loads_them(tmp_path, overrides):
    spec = tiny_spec(weights='missing.safetensors', sha256='0' * 64, **overrides)
    written = write_random_model(spec, tmp_path / 'm.yaml', STREET, 0)
    assert written == ModelSpec.load(tmp_path / 'm.yaml') and written.weights == 'm.safetensors'
    result = load_pipeline(tmp_path / 'm.yaml', 'pytorch', 'cpu', variant='dense')(STREET)
    assert np.isfinite(result.confidence).all()


def test_masks_spread_as_those_of_a_trained_model(tmp_path):
    spec = ModelSpec('m', BACKBONES['vit_tiny'], ADE20K_CLASSES, (128, 128), **PATCH)
    model = load_model(write_random_model(spec, tmp_path / 'm.yaml', street_scene((128, 128)), 0))
    with torch.inference_mode():
        output = model(model.normalize(torch.from_numpy(street_scene((128, 128), 1))[None]), Variant(), spec.budget)
    spread = float(output.stages[-1].mask_logits.std(2).mean())
    assert TRAINED_SPREAD / 2 < spread < TRAINED_SPREAD * 2
    assert len(output.scores[0].argmax(0).unique()) > 3, 'several classes win'


@pytest.mark.parametrize('size_hw, class_token', [((128, 96), False), ((100, 130), True)])
def test_the_same_scores_as_the_network_itself(tmp_path, size_hw, class_token):
    backbone = Backbone(24, 12, 3, class_token=class_token)
    spec = ModelSpec.load(write_lively_model(tmp_path, backbone=backbone, variant=Variant()))
    written = write_at_size(spec, at_size(spec, size_hw), tmp_path / 'resized' / 'tiny.yaml')
    assert ModelSpec.load(tmp_path / 'resized' / 'tiny.yaml') == written
    assert written.input_size_hw == size_hw and written.sha256 != spec.sha256
    image = torch.from_numpy(np.stack([street_scene(size_hw), street_scene(size_hw, 1)]))
    with torch.inference_mode():
        expected, result = (
            model(model.normalize(image), Variant(), spec.budget).scores
            for model in (load_model(spec), load_model(written))
        )
    assert torch.allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize('merged, own, larger', [(6, 6, 12), (0.5, 6, 12), (0, 0, 0), (12, 12, 24)])
def test_a_count_of_merged_windows_becomes_a_share(merged, own, larger):
    spec = tiny_spec(budget=TokenBudget(merged_windows=merged))
    for size_hw, count in (((96, 128), own), ((192, 128), larger)):
        sized = at_size(spec, size_hw)
        assert count_merged_windows(sized.backbone.grid_hw(size_hw), sized.budget.windows) == {2: count}
    assert dataclasses.replace(sized, input_size_hw=(96, 128), budget=spec.budget) == spec
    assert at_size(spec, (96, 128)) is spec, 'its own size is itself'


def test_sizes_that_cannot_be_had():
    with pytest.raises(ValueError, match='tiny: expected inference whole to run at other sizes, got sliding'):
        at_size(tiny_spec(inference='sliding'), (64, 64))
    with pytest.raises(ModelSpecError, match='input_size_hw: expected .height, width., a patch at least, got .8, 64.'):
        at_size(tiny_spec(), (8, 64))

    with pytest.raises(ValueError, match='expected at least 64x64, got 16x128'):  # a policy network cannot shrink it
        at_size(tiny_spec(), (16, 128))
    assert at_size(tiny_spec(), (64, 64)).input_size_hw == (64, 64)
