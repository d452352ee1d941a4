"""The plain way gives the labels of the real pipeline on the same weights: it is another way, not another model."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_model import write_lively_model

from hybrid_seg_ros.evaluation.benchmark.plain_pipeline import PlainPipeline
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter

HEADS = {
    'atm': {}, 'linear': {'head': 'linear', 'variant': Variant()},
    'segvit_atm': {'head': 'segvit_atm', 'variant': Variant()},
    'segvit_atm_v2': {'head': 'segvit_atm_v2', 'variant': Variant()},
}  # fmt: skip


@pytest.mark.parametrize('head, size_hw, resize', [
    *((head, (96, 128), 'letterbox') for head in HEADS), ('atm', (60, 110), 'letterbox'),
    ('segvit_atm', (60, 110), 'stretch'),
])  # fmt: skip
def test_labels_and_confidence_of_the_pipeline(tmp_path, head, size_hw, resize):
    path = write_lively_model(tmp_path, resize=resize, **HEADS[head])
    expected = load_pipeline(path, 'pytorch', 'cpu', variant='dense')(street_scene(size_hw))
    spec = ModelSpec.load(path)
    result = PlainPipeline.load(spec, Variant(), spec.budget)(street_scene(size_hw))
    assert result.labels.shape == size_hw and result.confidence.shape == size_hw
    same = np.mean(result.labels == expected.labels)
    if size_hw == (96, 128):
        # the pipeline interpolates a softmax, the plain way takes it at each pixel
        tolerance = 0.02 if head == 'linear' else 1e-4
        assert same > 0.999 and np.abs(result.confidence - expected.confidence).max() < tolerance
    else:  # the official code interpolates twice, to the network's size and then to the image's
        assert same > 0.9


@pytest.mark.parametrize('variant', ['cts', 'hybrid@8'])
def test_other_variants(tmp_path, variant):
    path = write_lively_model(tmp_path)
    spec = ModelSpec.load(path)
    budget = dataclasses.replace(spec.budget, keep=(0.5,))
    expected = load_pipeline(path, 'pytorch', 'cpu', variant=variant, keep=0.5)(street_scene((96, 128)))
    result = PlainPipeline.load(spec, Variant.parse(variant), budget)(street_scene((96, 128)))
    assert np.mean(result.labels == expected.labels) > 0.999
    assert result.tokens.stages == expected.tokens.stages
    timings = result.timings
    assert 0 < timings.preprocess_ms and 0 < timings.inference_ms and 0 < timings.postprocess_ms


def test_batch_norms_stay(tmp_path):
    spec = ModelSpec.load(write_lively_model(tmp_path))
    model = load_model(spec)
    PlainPipeline(model, Variant(), spec.budget, torch.device('cpu'))(street_scene((96, 128)))
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()) > 10


@pytest.mark.parametrize('overrides, complaint', [
    ({'refinement': 'image'}, 'expected a model in the form of the paper'),
    ({'auxiliary_head': 'light'}, 'form of the paper'),
    ({'inference': 'sliding'}, 'expected inference whole, got sliding'),
    ({'policy': 'efficientnet_lite0', 'auxiliary_layers': (6,), 'variant': Variant()},
     'no auxiliary head after layer 8'),
])  # fmt: skip
def test_what_it_does_not_run(tmp_path, overrides, complaint):
    spec = ModelSpec.load(write_lively_model(tmp_path, **overrides))
    with pytest.raises(ValueError, match=complaint):
        PlainPipeline(HybridSegmenter(spec), Variant.parse('hybrid@8'), spec.budget, torch.device('cpu'))
