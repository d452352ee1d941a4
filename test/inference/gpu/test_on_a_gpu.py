"""TensorRT at work on a GPU: PyTorch's labels, and everything that can only be seen where there is one.

Runs only where TensorRT, cuda-bindings and an NVIDIA GPU are. `-s` shows the times.
"""

# ruff: noqa: F401, F811  (fixtures and tests of the contract suite are used by their names)

import statistics

import numpy as np
import pytest
from test_backend_contract import (
    FRAME_FILES,
    LEAST_SHARE,
    POINTS,
    SHIPPED,
    frames,
    noise,
    pytorch_answers,
    test_concurrent_use,
    test_images_that_cannot_be_written_or_are_not_contiguous,
    test_wrong_input_is_refused,
)

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.data.image_files import read_image
from hybrid_seg_ros.export.build_engine import build_engines
from hybrid_seg_ros.export.export_onnx import export_model
from hybrid_seg_ros.inference.backends import create_backend
from hybrid_seg_ros.inference.backends.tensorrt.cuda import Gpu
from hybrid_seg_ros.inference.backends.tensorrt.label_map import DeviceScores
from hybrid_seg_ros.inference.backends.tensorrt.library import load_tensorrt
from hybrid_seg_ros.inference.postprocess import postprocess
from hybrid_seg_ros.inference.preprocess import fit_geometry
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant


def what_is_missing() -> str:
    try:
        load_tensorrt()
        Gpu().close()
    except (ModuleNotFoundError, ValueError) as error:
        return f'TensorRT runs on an NVIDIA GPU: {error}'
    return ''


if what_is_missing():
    pytest.skip(what_is_missing(), allow_module_level=True)

pytestmark = pytest.mark.timeout(1800)  # engines take minutes

PRECISIONS = ('float32', 'float16')


def open_pipeline(cache, variant, options, precision='float32', model=SHIPPED, **more):
    return load_pipeline(model, 'tensorrt', 'cuda', precision, variant, cache_dir=cache, **options, **more)


@pytest.fixture
def backend(tiny, cache):
    made = create_backend('tensorrt', ModelSpec.load(tiny), 'cuda', 'float32', cache_dir=cache)
    yield made
    made.close()


@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize(('variant', 'options'), POINTS)
def test_real_frames_give_the_labels_of_pytorch(pytorch_answers, frames, cache, precision, variant, options):
    pipeline = open_pipeline(cache, variant, options, precision)
    expected = pytorch_answers(variant, options)
    results = [pipeline(frame) for frame in frames]
    same = [np.mean(result.labels == reference.labels) for result, reference in zip(results, expected)]
    assert np.mean(same) >= LEAST_SHARE[precision], same
    for result, reference in zip(results, expected):
        assert list(result.tokens.stages) == list(reference.tokens.stages)
        if 'threshold' not in options:
            assert result.tokens.stages == reference.tokens.stages
    pipeline.close()


@pytest.mark.parametrize(('variant', 'options'), [('hybrid@8', {'keep': 0.6}), ('hybrid@6+8', {'threshold': 0.97})])
def test_a_frame_again_and_again(frames, cache, variant, options):
    """First launched, then captured, then replayed: always the same."""
    pipeline = open_pipeline(cache, variant, options, 'float16')
    first, second = frames[:2]
    expected = pipeline(first), pipeline(second)
    for _ in range(3):
        for frame, wanted in zip((first, second), expected):
            again = pipeline(frame)
            assert np.array_equal(again.labels, wanted.labels)
            assert np.array_equal(again.confidence, wanted.confidence)
    pipeline.close()


@pytest.mark.parametrize('size_hw', [(384, 512), (720, 960), (97, 131)])
def test_the_gpu_s_label_map_is_the_cpu_s(cache, size_hw):
    spec = ModelSpec.load(SHIPPED)
    made = create_backend('tensorrt', spec, 'cuda', 'float32', cache_dir=cache)
    prediction = made.infer(noise((384, 512))[None], Variant.parse('hybrid@8'), TokenBudget(0.45, keep=0.6))[0]
    assert isinstance(prediction.scores, DeviceScores), 'NVRTC is needed: pip install nvidia-cuda-nvrtc'
    geometry = fit_geometry(size_hw, spec)
    on_gpu, on_cpu = (postprocess(each, geometry, size_hw) for each in (prediction, prediction.on_host()))
    assert np.array_equal(on_gpu[0], on_cpu[0]) and np.array_equal(on_gpu[1], on_cpu[1])
    made.close()
    with pytest.raises(RuntimeError, match='closed'):
        prediction.on_host()


def test_an_answer_is_not_overwritten_by_the_next(backend, spec):
    first = backend.infer(noise((96, 128), 1)[None], spec.variant, spec.budget)[0]
    kept = np.asarray(first.scores), first.tokens.pruned_after_layer.copy()
    for seed in range(2, 6):
        backend.infer(noise((96, 128), seed)[None], spec.variant, spec.budget)
    assert np.array_equal(first.scores, kept[0]) and np.array_equal(first.tokens.pruned_after_layer, kept[1])


@pytest.mark.parametrize('budget', [TokenBudget(threshold=0.3), TokenBudget(keep=(0.5,))], ids=str)
def test_a_batch_is_its_images(backend, spec, budget):
    images = np.stack([noise((96, 128), seed) for seed in range(3)])
    for image, prediction in zip(images, backend.infer(images, spec.variant, budget)):
        alone = backend.infer(image[None], spec.variant, budget)[0]
        assert np.allclose(prediction.scores, alone.scores, atol=1e-3)
        assert prediction.tokens.stages == alone.tokens.stages


def test_warm_up_then_close(backend, spec):
    backend.warm_up((96, 128), spec.variant, spec.budget)
    assert 'cuda:0' in backend.device_name
    backend.close()
    backend.close()
    with pytest.raises(RuntimeError, match='closed'):
        backend.infer(noise((96, 128))[None], spec.variant, spec.budget)


@pytest.mark.parametrize('options', [{'keep': 0.5}, {'threshold': 0.3}], ids=str)
def test_a_truncated_engine_is_built_again(tiny, tmp_path, options):
    pipeline = open_pipeline(tmp_path, 'hybrid@8', options, model=tiny)
    expected = pipeline(noise((96, 128)))
    pipeline.close()
    engines = sorted((tmp_path / 'engines').rglob('*.engine'))
    assert engines
    for engine in engines:
        engine.write_bytes(engine.read_bytes()[:5000])
    pipeline = open_pipeline(tmp_path, 'hybrid@8', options, model=tiny)
    assert np.mean(pipeline(noise((96, 128))).labels == expected.labels) > 0.999
    pipeline.close()
    assert sorted((tmp_path / 'engines').rglob('*.engine')) == engines
    assert all(engine.stat().st_size > 5000 for engine in engines)


@pytest.mark.parametrize('options', [{'keep': 0.5}, {'threshold': 0.3}], ids=str)
def test_engine_files_run(tiny, cache, tmp_path, options):
    variant, model = 'hybrid@6+8', ModelSpec.load(tiny)
    export_model(model, Variant.parse(variant), TokenBudget(**options), tmp_path / 'm.onnx', outputs='scores')
    build_engines(tmp_path / 'm.onnx')
    expected = load_pipeline(tiny, 'pytorch', 'cpu', variant=variant, **options)
    pipeline = open_pipeline(cache, None, {}, model=tiny, graph=tmp_path / 'm.engine')
    pipeline.set_operating_point(Variant.parse(variant), TokenBudget(**options))
    for seed in range(3):
        assert np.mean(pipeline(noise((96, 128), seed)).labels == expected(noise((96, 128), seed)).labels) > 0.999
    pipeline.close()


def test_times(cache, capsys):
    """No times are asserted: they are shown."""
    frame = read_image(FRAME_FILES[0])
    for precision in PRECISIONS:
        for variant, options in POINTS:
            pipeline = open_pipeline(cache, variant, options, precision)
            pipeline.warm_up()
            each = [pipeline(frame).timings for _ in range(30)][5:]
            parts = [statistics.median(getattr(timings, f'{part}_ms') for timings in each)
                     for part in ('preprocess', 'inference', 'postprocess', 'total')]  # fmt: skip
            pipeline.close()
            with capsys.disabled():
                print(f'\n{precision} {variant} {options}: median ms preprocess {parts[0]:.2f}, inference '
                      f'{parts[1]:.2f}, postprocess {parts[2]:.2f}, total {parts[3]:.2f}')  # fmt: skip
