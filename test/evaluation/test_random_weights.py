"""Random weights that every backend loads, the same for the same seed, with masks as spread as a trained model's."""

import numpy as np
import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.data.ade20k import ADE20K_CLASSES
from hybrid_seg_ros.evaluation.benchmark.models import TRAINED_SPREAD, write_random_model
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.model_spec import BACKBONES, ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model

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
