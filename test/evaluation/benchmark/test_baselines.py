"""Baselines give the labels of this package: the same model, in other hands, or another way, not another model."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from tiny_model import write_lively_model
from torch._inductor import config as inductor

from hybrid_seg_ros.evaluation.benchmark import torch_baselines
from hybrid_seg_ros.evaluation.benchmark.baseline_pipeline import dense_pipeline
from hybrid_seg_ros.evaluation.benchmark.baselines import open_exported
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.evaluation.benchmark.torch_baselines import (
    CompileError,
    check_compiler,
    export_dense,
    open_compiled,
    open_plain,
    plain_pipeline,
)
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.model_spec import Backbone, Decoder, ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter

SMALL = {'backbone': Backbone(24, 1, 3), 'policy': 'none', 'auxiliary_layers': (),
         'decoder': Decoder(12, 1, 3), 'variant': Variant(), 'input_size_hw': (64, 96)}  # fmt: skip
HEADS = {
    'atm, refined': {'refinement': 'image'}, 'linear': {'head': 'linear'},
    'segvit_atm': {'head': 'segvit_atm', 'backbone': Backbone(24, 4, 3), 'auxiliary_layers': (2, 3)},
    'mask_transformer': {'head': 'mask_transformer', 'decoder': Decoder(24, 1, 3)},
}  # fmt: skip


def exported(spec, folder, precision='float32'):
    path = folder / 'graphs' / 'dense.onnx'
    export_dense(spec, path, precision)
    return open_exported(spec, path, 'cpu')


def assert_same(result, expected, tolerance):
    same = result.labels == expected.labels
    assert np.mean(same) >= 0.999
    # where two classes tie, rounding chooses, and the softmax of the one need not be that of the other
    assert np.abs(result.confidence - expected.confidence)[same].max() < tolerance
    assert len(np.unique(result.confidence)) > 1
    assert result.tokens.stages == expected.tokens.stages
    timings = result.timings
    assert 0 < timings.preprocess_ms and 0 < timings.inference_ms and 0 < timings.postprocess_ms


@pytest.mark.parametrize('head', HEADS)
def test_an_export_gives_the_labels_of_our_dense_variant(tmp_path, head):
    pytest.importorskip('onnxruntime')
    path = write_lively_model(tmp_path, **{**SMALL, **HEADS[head]})
    image = street_scene((64, 96))
    expected = load_pipeline(path, 'pytorch', 'cpu')(image)
    assert_same(exported(ModelSpec.load(path), tmp_path)(image), expected, 1e-3)


@pytest.mark.parametrize('resize', ['letterbox', 'stretch'])
def test_an_image_of_another_size(tmp_path, resize):
    """Labels are resized: off by less than a pixel of the network at the edges of what it found."""
    pytest.importorskip('onnxruntime')
    path = write_lively_model(tmp_path, resize=resize, **SMALL)
    image = street_scene((80, 150))
    expected = load_pipeline(path, 'pytorch', 'cpu')(image)
    pipeline = exported(ModelSpec.load(path), tmp_path)
    result = pipeline(image)
    assert result.labels.shape == result.confidence.shape == (80, 150)
    assert np.mean(result.labels == expected.labels) > 0.97
    with pytest.raises(ValueError, match='expected an RGB image'):
        pipeline(image[:, :, 0])


def test_half_precision(tmp_path):
    pytest.importorskip('onnxruntime')
    path = write_lively_model(tmp_path, **SMALL)
    image = street_scene((64, 96))
    result = exported(ModelSpec.load(path), tmp_path, 'float16')(image)
    assert np.mean(result.labels == load_pipeline(path, 'pytorch', 'cpu')(image).labels) > 0.98


def test_torch_compile_gives_the_labels_of_our_dense_variant(tmp_path, monkeypatch):
    """Also with another network behind it: PyTorch limits how many it keeps compiled of one function, to eight.

    Up to where the C++ compiler begins, which takes most of a minute.
    """
    compile_with(monkeypatch, 'aot_eager')
    path = write_lively_model(tmp_path, **SMALL)
    image = street_scene((64, 96))
    pipeline = open_compiled(ModelSpec.load(path))
    assert_same(pipeline(image), load_pipeline(path, 'pytorch', 'cpu')(image), 1e-3)
    with torch._dynamo.config.patch(recompile_limit=1):
        open_compiled(ModelSpec.load(write_lively_model(tmp_path, **{**SMALL, 'input_size_hw': (64, 112)})))
        with torch.compiler.set_stance('fail_on_recompile'):
            pipeline(image)


@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a C++ compiler, g++, and there is none')
def test_a_compiler():
    check_compiler()


def compile_with(monkeypatch, backend):
    real = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda module, **options: real(module, backend=backend, **options))


def test_no_compiler(monkeypatch, tmp_path):
    torch.compiler.reset()  # what is compiled already needs none
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path / 'inductor'))
    with inductor.patch({'cpp.cxx': ('no-such-compiler',)}), pytest.raises(CompileError, match='needs a C.. compiler'):
        check_compiler()


def test_a_network_that_cannot_be_compiled(tmp_path, monkeypatch):
    spec = ModelSpec.load(write_lively_model(tmp_path, **SMALL))

    def broken(graph, inputs):
        raise RuntimeError('cannot lower aten.moon')

    compile_with(monkeypatch, broken)
    with pytest.raises(CompileError, match='torch.compile: tiny: .*cannot lower aten.moon'):
        open_compiled(spec)


def test_an_export_leaves_dropout_off(tmp_path, monkeypatch):
    """The exporter puts all modules back into the mode of the outermost one, which is training where nobody says so."""
    pytest.importorskip('onnx')
    model = torch_baselines.load_model(ModelSpec.load(write_lively_model(tmp_path, **SMALL)))
    monkeypatch.setattr(torch_baselines, 'load_model', lambda spec: model)  # to look at it afterwards
    export_dense(model.spec, tmp_path / 'dense.onnx')
    assert (tmp_path / 'dense.onnx').is_file() and not any(module.training for module in model.modules())


def test_whole_frames_only(tmp_path):
    spec = ModelSpec.load(write_lively_model(tmp_path, inference='sliding'))
    with pytest.raises(ValueError, match='expected inference whole, got sliding'):
        dense_pipeline(spec, None, 'cpu')


PLAIN_HEADS = {
    'atm': {}, 'linear': {'head': 'linear', 'variant': Variant()},
    'segvit_atm': {'head': 'segvit_atm', 'variant': Variant()},
    'segvit_atm_v2': {'head': 'segvit_atm_v2', 'variant': Variant()},
}  # fmt: skip


@pytest.mark.parametrize('head, size_hw, resize', [
    *((head, (96, 128), 'letterbox') for head in PLAIN_HEADS), ('atm', (60, 110), 'letterbox'),
    ('segvit_atm', (60, 110), 'stretch'),
])  # fmt: skip
def test_the_plain_way_gives_labels_and_confidence_of_the_pipeline(tmp_path, head, size_hw, resize):
    path = write_lively_model(tmp_path, resize=resize, **PLAIN_HEADS[head])
    expected = load_pipeline(path, 'pytorch', 'cpu', variant='dense')(street_scene(size_hw))
    spec = ModelSpec.load(path)
    result = open_plain(spec, Variant(), spec.budget)(street_scene(size_hw))
    assert result.labels.shape == size_hw and result.confidence.shape == size_hw
    same = np.mean(result.labels == expected.labels)
    if size_hw == (96, 128):
        # the pipeline interpolates a softmax, the plain way takes it at each pixel
        tolerance = 0.02 if head == 'linear' else 1e-4
        assert same > 0.999 and np.abs(result.confidence - expected.confidence).max() < tolerance
    else:  # the official code interpolates twice, to the network's size and then to the image's
        assert same > 0.9


@pytest.mark.parametrize('variant', ['cts', 'hybrid@8'])
def test_other_variants_the_plain_way(tmp_path, variant):
    path = write_lively_model(tmp_path)
    spec = ModelSpec.load(path)
    budget = dataclasses.replace(spec.budget, keep=(0.5,))
    expected = load_pipeline(path, 'pytorch', 'cpu', variant=variant, keep=0.5)(street_scene((96, 128)))
    result = open_plain(spec, Variant.parse(variant), budget)(street_scene((96, 128)))
    assert np.mean(result.labels == expected.labels) > 0.999
    assert result.tokens.stages == expected.tokens.stages
    timings = result.timings
    assert 0 < timings.preprocess_ms and 0 < timings.inference_ms and 0 < timings.postprocess_ms


def test_batch_norms_stay(tmp_path):
    spec = ModelSpec.load(write_lively_model(tmp_path))
    model = load_model(spec)
    plain_pipeline(model, Variant(), spec.budget, torch.device('cpu'))(street_scene((96, 128)))
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()) > 10


@pytest.mark.parametrize('overrides, complaint', [
    ({'refinement': 'image'}, 'expected a model in the form of the paper'),
    ({'auxiliary_head': 'light'}, 'form of the paper'),
    ({'inference': 'sliding'}, 'expected inference whole, got sliding'),
    ({'policy': 'efficientnet_lite0', 'auxiliary_layers': (6,), 'variant': Variant()},
     'no auxiliary head after layer 8'),
])  # fmt: skip
def test_what_the_plain_way_does_not_run(tmp_path, overrides, complaint):
    spec = ModelSpec.load(write_lively_model(tmp_path, **overrides))
    with pytest.raises(ValueError, match=complaint):
        plain_pipeline(HybridSegmenter(spec), Variant.parse('hybrid@8'), spec.budget, torch.device('cpu'))
