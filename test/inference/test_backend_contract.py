"""What every backend keeps to: the labels and tokens of PyTorch on real frames, and how it starts, ends and refuses."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_spec, write_lively_model

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.data.image_files import read_image
from hybrid_seg_ros.inference.backends import BACKENDS, create_backend
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.model_spec import SlidingWindow, Variant
from hybrid_seg_ros.process_memory import processor_has_bfloat16

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / 'models' / 'segvit_small_camvid.yaml'
FRAME_FILES = sorted((ROOT / 'test' / 'data' / 'camvid_frames').glob('*.jpg'))

LEAST_SHARE = {'float32': 0.999, 'bfloat16': 0.995, 'float16': 0.995}
POINTS = [
    ('dense', {}), ('cts', {}), ('dtop@8', {'keep': 0.5}), ('hybrid@8', {'keep': 0.6}),
    ('hybrid@8', {'threshold': 0.9}), ('hybrid@6+8', {'threshold': 0.97}),
]  # fmt: skip
TINY_POINTS = [*POINTS, ('hybrid@6+8', {'keep': [0.7, 11]}), ('dtop@6+8', {'threshold': 0.26}),
               ('hybrid@6+8', {'threshold': 1.0})]  # fmt: skip


def noise(size_hw, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def frames():
    """Two frames that show all classes, and the roofs of a third, which do not."""
    return [read_image(FRAME_FILES[0]), read_image(FRAME_FILES[-1]), read_image(FRAME_FILES[2])[:150, :250]]


@pytest.fixture(scope='module')
def pytorch_answers(frames):
    """What PyTorch in float32 answers to the real frames at a point; each is asked once."""
    found = {}

    def ask(variant, options):
        if (variant, str(options)) not in found:
            pipeline = load_pipeline(SHIPPED, 'pytorch', 'cpu', variant=variant, **options)
            found[variant, str(options)] = [pipeline(frame) for frame in frames]
        return found[variant, str(options)]

    return ask


FIXED, BY_THRESHOLD = POINTS[3], POINTS[5]
REAL_RUNS = [
    ('onnxruntime', 'float32', *POINTS[1]), ('onnxruntime', 'float32', *FIXED),
    ('onnxruntime', 'float32', *BY_THRESHOLD), ('onnxruntime', 'float16', *BY_THRESHOLD),
    ('openvino', 'float32', *FIXED), ('openvino', 'bfloat16', *BY_THRESHOLD), ('pytorch', 'bfloat16', *FIXED),
]  # fmt: skip
"""All backends and precisions that run without a GPU; TensorRT is in gpu/test_on_a_gpu.py."""


@pytest.mark.parametrize(('backend', 'precision', 'variant', 'options'), REAL_RUNS)
def test_real_frames_give_the_labels_of_pytorch(pytorch_answers, frames, cache, backend, precision, variant, options):
    if (backend, precision) == ('openvino', 'bfloat16') and not processor_has_bfloat16():
        with pytest.raises(ValueError, match='this processor has no instructions for bfloat16'):
            load_pipeline(SHIPPED, backend, precision=precision, variant=variant)
        return
    pipeline = load_pipeline(SHIPPED, backend, precision=precision, variant=variant, cache_dir=cache, **options)
    results = [pipeline(frame) for frame in frames]
    pipeline.close()
    expected = pytorch_answers(variant, options)
    same = [np.mean(result.labels == reference.labels) for result, reference in zip(results, expected)]
    assert np.mean(same) >= LEAST_SHARE[precision], same
    for result, reference in zip(results, expected):
        assert list(result.tokens.stages) == list(reference.tokens.stages)
        if precision == 'float32':
            assert result.tokens.stages == reference.tokens.stages
            assert np.array_equal(result.tokens.window_size, reference.tokens.window_size)
            assert np.array_equal(result.tokens.pruned_after_layer, reference.tokens.pruned_after_layer)
            assert np.abs(result.confidence - reference.confidence).max() < 3e-3
    if 'threshold' in options:
        assert len({reference.tokens.kept for reference in expected}) > 1, 'frames that keep other numbers of tokens'
    assert len({tuple(np.unique(reference.labels)) for reference in expected}) > 1, 'frames of different classes'


@pytest.mark.parametrize(('backend', 'variant', 'options'), [
    *(('onnxruntime', *point) for point in TINY_POINTS), *(('openvino', *point) for point in TINY_POINTS[-3:]),
])  # fmt: skip
def test_the_same_scores_as_pytorch(tiny, cache, backend, variant, options):
    images = [noise((96, 128), seed) for seed in range(3)]
    expected = load_pipeline(tiny, 'pytorch', 'cpu', variant=variant, **options)
    pipeline = load_pipeline(tiny, backend, 'cpu', 'float32', variant, cache_dir=cache, **options)
    for image in images:
        a, b = expected(image), pipeline(image)
        assert np.mean(a.labels == b.labels) > 0.999 and np.abs(a.confidence - b.confidence).max() < 1e-3
        assert a.tokens.stages == b.tokens.stages
        assert np.array_equal(a.tokens.pruned_after_layer, b.tokens.pruned_after_layer)


@pytest.mark.parametrize('overrides', [
    {'policy': 'efficientnet_lite0'},
    {'refinement': 'image', 'auxiliary_head': 'light'},
    {'policy': 'half_size', 'trunk_convention': 'timm'},
    {'policy': 'patch_mlp', 'input_size_hw': (90, 100)},  # sides that are no multiple of a patch
    {'head': 'linear', 'variant': Variant.parse('cts')},
    {'head': 'mask_transformer', 'variant': Variant.parse('cts')},
    {'head': 'segvit_atm', 'variant': Variant.parse('cts')},
    {'head': 'segvit_atm_v2', 'policy': 'none', 'variant': Variant()},
], ids=str)  # fmt: skip
def test_every_kind_of_model(tmp_path, cache, overrides):
    overrides = {'policy': 'patch_mlp', **overrides}
    model = write_lively_model(tmp_path, **overrides)
    points = [(str(tiny_spec(**overrides).variant), {})]
    if 'head' not in overrides:
        points = [('hybrid@8', {'keep': 0.5}), ('hybrid@6+8', {'threshold': 0.3})]
    for variant, options in points:
        expected = load_pipeline(model, 'pytorch', 'cpu', variant=variant, **options)(noise((80, 110)))
        result = load_pipeline(model, 'onnxruntime', variant=variant, cache_dir=cache, **options)(noise((80, 110)))
        assert np.mean(result.labels == expected.labels) > 0.999
        assert result.tokens.stages == expected.tokens.stages
        assert np.abs(result.confidence - expected.confidence).max() < 1e-3


def open_backend(name, spec, cache):
    return create_backend(name, spec, 'cpu', 'float32', cache_dir=cache)


@pytest.fixture(scope='module', params=['pytorch', 'onnxruntime', 'openvino'])
def backend(request, spec, cache):
    made = open_backend(request.param, spec, cache)
    yield made
    made.close()


def same(a, b):
    return np.allclose(a.scores, b.scores, atol=1e-5) and a.tokens.stages == b.tokens.stages


@pytest.mark.parametrize('name', ['pytorch', 'onnxruntime', 'openvino'])
def test_warm_up_then_close(name, spec, cache):
    backend = open_backend(name, spec, cache)
    backend.warm_up((96, 128), spec.variant, spec.budget)
    assert backend.device_name == 'cpu'
    backend.close()
    backend.close()
    with pytest.raises(RuntimeError, match='closed'):
        backend.infer(noise((96, 128))[None], spec.variant, spec.budget)


def test_concurrent_use(backend, spec):
    images = [noise((96, 128), seed)[None] for seed in range(4)]
    budgets = [spec.budget, dataclasses.replace(spec.budget, keep=(0.7, 11))] * 2
    alone = [backend.infer(image, spec.variant, budget)[0] for image, budget in zip(images, budgets)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = pool.map(lambda i: backend.infer(images[i], spec.variant, budgets[i])[0], range(4))
            assert all(same(a, b) for a, b in zip(alone, together))


@pytest.mark.parametrize('budget', [{'threshold': 0.3}, {'keep': (0.7, 11)}], ids=str)
def test_a_batch_is_its_images(backend, spec, budget):
    budget = dataclasses.replace(spec.budget, **budget)
    images = np.stack([noise((96, 128), seed) for seed in range(3)])
    batch = backend.infer(images, spec.variant, budget)
    assert len(batch) == 3
    for image, prediction in zip(images, batch):
        assert same(prediction, backend.infer(image[None], spec.variant, budget)[0])


def test_an_answer_is_not_overwritten_by_the_next(backend, spec):
    first = backend.infer(noise((96, 128), 1)[None], spec.variant, spec.budget)[0]
    kept = first.scores.copy(), first.tokens.pruned_after_layer.copy()
    backend.infer(noise((96, 128), 2)[None], spec.variant, spec.budget)
    assert np.array_equal(first.scores, kept[0]) and np.array_equal(first.tokens.pruned_after_layer, kept[1])


@pytest.mark.parametrize(('images', 'complaint'), [
    (np.zeros((1, 96, 128, 3), np.float32), 'float32'),
    (np.zeros((96, 128, 3), np.uint8), r'expected RGB images \(B, H, W, 3\) uint8, got \(96, 128, 3\)'),
    (np.zeros((1, 96, 128, 4), np.uint8), '128, 4'),
    (np.zeros((0, 96, 128, 3), np.uint8), 'at least one image'),
    ([[1, 2]], 'got list'),
], ids=['float', 'no batch', 'four channels', 'empty', 'list'])  # fmt: skip
def test_wrong_input_is_refused(backend, spec, images, complaint):
    with pytest.raises(ValueError, match=complaint):
        backend.infer(images, spec.variant, spec.budget)


def test_images_that_cannot_be_written_or_are_not_contiguous(backend, spec):
    image = noise((96, 128))
    expected = backend.infer(image[None], spec.variant, spec.budget)[0]
    image.setflags(write=False)
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    assert same(expected, backend.infer(image[None], spec.variant, spec.budget)[0])
    assert same(expected, backend.infer(mirrored[None], spec.variant, spec.budget)[0])


def test_operating_points_come_and_go(backend, spec):
    image = noise((96, 128))[None]
    first = backend.infer(image, spec.variant, spec.budget)[0]
    for variant, options in TINY_POINTS[:5]:  # more than stay loaded
        backend.infer(image, Variant.parse(variant), choose_budget(spec.budget, **options))
    assert same(first, backend.infer(image, spec.variant, spec.budget)[0])


@pytest.mark.parametrize(('name', 'options'), [('onnxruntime', {'keep': 0.5}), ('openvino', {'threshold': 0.3})])
def test_the_sliding_window(tmp_path, cache, name, options):
    model = write_lively_model(tmp_path, policy='patch_mlp', sliding_window=SlidingWindow(96, 64), inference='sliding')
    expected = load_pipeline(model, 'pytorch', 'cpu', **options)(noise((100, 180)))
    result = load_pipeline(model, name, 'cpu', 'float32', cache_dir=cache, **options)(noise((100, 180)))
    assert np.mean(result.labels == expected.labels) > 0.999 and result.tokens.stages == expected.tokens.stages


@pytest.mark.parametrize(('name', 'device', 'precision', 'complaint'), [
    ('caffe', 'cpu', 'float32', 'unknown backend .caffe.; legal are pytorch, onnxruntime, openvino, tensorrt'),
    ('onnxruntime', 'cpu', 'bfloat16', 'legal for onnxruntime are float32, float16'),
    ('onnxruntime', 'gpu', 'float32', 'unknown device .gpu.; legal are cpu, cuda, cuda:N, tensorrt, tensorrt:N'),
    ('onnxruntime', 'cuda', 'float32', 'needs the CUDAExecutionProvider of ONNX Runtime; this build'),
    ('onnxruntime', 'tensorrt:1', 'float32', 'needs the TensorrtExecutionProvider'),
    ('openvino', 'cuda', 'float32', 'backend openvino runs on cpu: expected device cpu, got .cuda.'),
    ('tensorrt', 'cpu', 'float32', 'backend tensorrt needs an NVIDIA GPU: expected device cuda, cuda:N, got .cpu.'),
    ('pytorch', 'cpu:1', 'float32', 'unknown device .cpu:1.; legal are cpu, cuda, cuda:N'),
    ('pytorch', 'cpu', 'float16', 'float16 needs a CUDA device'),
])  # fmt: skip
def test_what_cannot_be_had_is_an_error_and_nothing_else(spec, cache, name, device, precision, complaint):
    with pytest.raises(ValueError, match=complaint):
        create_backend(name, spec, device, precision, cache_dir=cache)


def test_every_backend_is_covered():
    without_gpu = {(name, precision) for name, precisions in BACKENDS.items() for precision in precisions}
    without_gpu -= {('pytorch', 'float16'), ('tensorrt', 'float32'), ('tensorrt', 'float16')}
    assert {run[:2] for run in REAL_RUNS} | {('pytorch', 'float32')} == without_gpu
