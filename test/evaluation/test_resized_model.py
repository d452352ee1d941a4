"""A model at another size is the same model: what the network does with a larger image, kept as a file."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_model import tiny_spec, write_lively_model

from hybrid_seg_ros.evaluation.benchmark.models import at_size, write_at_size
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.model_spec import Backbone, ModelSpec, ModelSpecError, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.token_counts import count_merged_windows


@pytest.mark.parametrize('size_hw', [(128, 96), (64, 160), (100, 130)])
@pytest.mark.parametrize('class_token', [False, True])
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


def test_its_own_size_is_itself():
    spec = tiny_spec(budget=TokenBudget(merged_windows=5))
    assert at_size(spec, (96, 128)) is spec


@pytest.mark.parametrize('merged, own, larger', [(6, 6, 12), (0.5, 6, 12), (0, 0, 0), (12, 12, 24)])
def test_a_count_of_merged_windows_becomes_a_share(merged, own, larger):
    spec = tiny_spec(budget=TokenBudget(merged_windows=merged))
    for size_hw, count in (((96, 128), own), ((192, 128), larger)):
        sized = at_size(spec, size_hw)
        assert count_merged_windows(sized.backbone.grid_hw(size_hw), sized.budget.windows) == {2: count}
    assert dataclasses.replace(sized, input_size_hw=(96, 128), budget=spec.budget) == spec


def test_sizes_that_cannot_be_had():
    with pytest.raises(ValueError, match='tiny: expected inference whole to run at other sizes, got sliding'):
        at_size(tiny_spec(inference='sliding'), (64, 64))
    with pytest.raises(ModelSpecError, match='input_size_hw: expected .height, width., a patch at least, got .8, 64.'):
        at_size(tiny_spec(), (8, 64))


def test_a_size_that_a_policy_network_cannot_shrink_is_refused():
    with pytest.raises(ValueError, match='expected at least 64x64, got 16x128'):
        at_size(tiny_spec(), (16, 128))
    assert at_size(tiny_spec(), (64, 64)).input_size_hw == (64, 64)
