"""What TensorRtRunner does with a GPU, on the GPU of host_gpu.py. test_runner.py runs it, by itself."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import host_gpu
import numpy as np
import pytest
from tiny_model import write_lively_model

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.inference.backends.graph_backend import MAX_OPEN, GraphBackend
from hybrid_seg_ros.inference.backends.graph_info import GraphError
from hybrid_seg_ros.inference.backends.graph_source import CachedGraphs
from hybrid_seg_ros.inference.backends.tensorrt import backend as tensorrt_backend
from hybrid_seg_ros.inference.backends.tensorrt import label_map
from hybrid_seg_ros.inference.backends.tensorrt.backend import close_queues, open_queues
from hybrid_seg_ros.inference.backends.tensorrt.cuda import Gpu
from hybrid_seg_ros.inference.backends.tensorrt.engine_build import Plan
from hybrid_seg_ros.inference.backends.tensorrt.engine_file import EngineInfo, write_engines
from hybrid_seg_ros.inference.backends.tensorrt.label_map import DeviceScores
from hybrid_seg_ros.inference.backends.tensorrt.runner import TensorRtRunner
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline, choose_budget
from hybrid_seg_ros.model_spec import ModelSpec, SlidingWindow, Variant, sha256_of

POINTS = [
    ('dense', {}), ('cts', {}), ('hybrid@8', {'keep': 0.6}), ('hybrid@6+8', {'keep': [0.7, 11]}),
    ('dtop@8', {'threshold': 0.26}), ('hybrid@6+8', {'threshold': 0.3}),
]  # fmt: skip
STREAMS = {'scores': '0', 'compute': '1'}


def noise(seed=0, size_hw=(96, 128)):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


@pytest.fixture(scope='session')
def driver(tmp_path_factory):
    return host_gpu.load_driver(tmp_path_factory.mktemp('driver'))


@pytest.fixture(params=['', *STREAMS.values()], ids=['all late', *(f'{name} at once' for name in STREAMS)])
def pace(request, monkeypatch):
    monkeypatch.setenv('HOST_CUDA_EAGER', request.param)


@pytest.fixture
def open_backend(driver, cache):
    opened = []

    def open_it(spec, precision='float32'):
        gpu = Gpu()
        queues = open_queues(gpu)

        def open_graph(path, info, part):
            return TensorRtRunner(host_gpu.HostEngine(path, driver, info.tokens), queues, path.name)

        def close_device():
            close_queues(queues)
            gpu.close()

        backend = GraphBackend(CachedGraphs(spec, precision, cache), open_graph, 'host', close_device)
        opened.append(backend)
        return backend

    yield open_it
    for backend in opened:
        backend.close()
    assert driver.host_cuda_live() == 0, 'memory, events, streams, graphs or kernels that nobody has given back'


@pytest.fixture
def open_pipeline(open_backend):
    def open_it(model, variant, options, precision='float32'):
        spec = ModelSpec.load(model)
        budget = choose_budget(spec.budget, **options)
        return SegmentationPipeline(spec, open_backend(spec, precision), 'tensorrt', precision,
                                    Variant.parse(variant), budget)  # fmt: skip

    return open_it


def assert_same(result, expected, atol=0.0):
    assert np.array_equal(result.labels, expected.labels)
    np.testing.assert_allclose(result.confidence, expected.confidence, rtol=0, atol=atol)
    assert result.tokens.stages == expected.tokens.stages
    assert np.array_equal(result.tokens.window_size, expected.tokens.window_size)
    assert np.array_equal(result.tokens.pruned_after_layer, expected.tokens.pruned_after_layer)


@pytest.mark.parametrize(('variant', 'options', 'eager'), [
    *((*point, '') for point in POINTS), (*POINTS[2], '0'), (*POINTS[2], '1'), (*POINTS[-1], '0'), (*POINTS[-1], '1'),
])  # fmt: skip
def test_frames_one_after_the_other(driver, tiny, cache, open_pipeline, monkeypatch, variant, options, eager):
    monkeypatch.setenv('HOST_CUDA_EAGER', eager)
    images = [noise(seed, size) for seed, size in enumerate([(96, 128), (50, 70), (96, 128), (200, 90), (96, 128)])]
    reference = load_pipeline(tiny, 'onnxruntime', variant=variant, cache_dir=cache, **options)
    expected = [reference(image) for image in images]
    assert len({result.tokens.kept for result in expected}) > 1 or 'threshold' not in options
    pipeline = open_pipeline(tiny, variant, options)
    kernels, graphs = driver.host_cuda_kernels(), driver.host_cuda_graphs()
    pipeline.warm_up()
    for image, wanted in zip(images, expected):
        assert_same(pipeline(image), wanted)
    assert driver.host_cuda_kernels() - kernels == len(images), 'label maps are made on the GPU'
    fixed = 2 if Variant.parse(variant).merges else 1  # the policy network is a graph of its own
    assert driver.host_cuda_graphs() - graphs == fixed * len(images), 'warm-up has captured all graphs'


def test_a_film_leaves_the_policy_network_out(tiny, cache, open_pipeline):
    """The image, which otherwise lies where the policy network has it, is then uploaded for the network itself."""
    variant, options = POINTS[2]
    reference = load_pipeline(tiny, 'onnxruntime', variant=variant, cache_dir=cache, **options)
    pipeline, film = open_pipeline(tiny, variant, options), ([noise()] * 4, [0.0, 0.1, 9.0, 9.1], 'previous')
    results = list(pipeline.stream(*film))
    assert [result.tokens.merged_by for result in results] == ['policy', 'previous'] * 2
    for result, wanted in zip(results, reference.stream(*film)):
        assert_same(result, wanted)


def test_half_precision(tiny, cache, open_pipeline):
    variant, options = POINTS[-1]
    reference = load_pipeline(tiny, 'onnxruntime', precision='float16', variant=variant, cache_dir=cache, **options)
    pipeline = open_pipeline(tiny, variant, options, 'float16')
    for seed in range(3):
        assert_same(pipeline(noise(seed)), reference(noise(seed)), atol=1e-3)


@pytest.mark.parametrize('reason', ['driver', 'engine'])
@pytest.mark.parametrize(('variant', 'options'), [POINTS[2], POINTS[-1]])
def test_without_cuda_graphs(driver, tiny, open_pipeline, monkeypatch, caplog, variant, options, reason):
    with_graphs = open_pipeline(tiny, variant, options)
    expected = [with_graphs(noise(seed)) for seed in range(4)]
    if reason == 'driver':
        monkeypatch.setenv('HOST_CUDA_NO_GRAPHS', '1')
    else:  # as TensorRT for RTX says it
        monkeypatch.setattr(host_gpu.HostContext, 'is_stream_capturable', lambda self, stream: False, raising=False)
    before = driver.host_cuda_graphs()
    without = open_pipeline(tiny, variant, options)
    for seed, wanted in enumerate(expected):
        assert_same(without(noise(seed)), wanted)
    assert driver.host_cuda_graphs() == before and 'no CUDA graph' in caplog.text


def test_without_a_compiler_the_cpu_makes_the_label_map(driver, tiny, open_pipeline, monkeypatch, caplog, tmp_path):
    expected = open_pipeline(tiny, *POINTS[2])(noise())
    broken = tmp_path / 'broken.cu'
    broken.write_text('no CUDA C')
    monkeypatch.setattr(label_map, 'KERNEL_FILE', broken)
    before = driver.host_cuda_kernels()
    assert_same(open_pipeline(tiny, *POINTS[2])(noise()), expected)
    assert driver.host_cuda_kernels() == before
    assert 'label maps are made on the CPU: broken.cu: nvrtcCompileProgram' in caplog.text


@pytest.mark.parametrize(('budget', 'eager'), [
    ({'threshold': 0.3}, ''), ({'threshold': 0.3}, STREAMS['scores']), ({'keep': (0.7, 11)}, STREAMS['compute']),
], ids=str)  # fmt: skip
def test_many_threads(spec, open_backend, monkeypatch, budget, eager):
    monkeypatch.setenv('HOST_CUDA_EAGER', eager)
    budget = dataclasses.replace(spec.budget, **budget)
    backend = open_backend(spec)
    images = [noise(seed)[None] for seed in range(6)]
    alone = [np.asarray(backend.infer(image, spec.variant, budget)[0].scores) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            together = pool.map(lambda image: np.asarray(backend.infer(image, spec.variant, budget)[0].scores), images)
            assert all(np.array_equal(a, b) for a, b in zip(alone, together))


@pytest.mark.parametrize('budget', [{'threshold': 0.3}, {'keep': (0.7, 11)}], ids=str)
def test_a_batch_of_more_than_the_graph_takes(spec, open_backend, budget):
    budget = dataclasses.replace(spec.budget, **budget)
    backend = open_backend(spec)
    images = np.stack([noise(seed) for seed in range(3)])
    alone = [np.asarray(backend.infer(image[None], spec.variant, budget)[0].scores) for image in images]
    for prediction, wanted in zip(backend.infer(images, spec.variant, budget), alone):
        assert np.allclose(prediction.scores, wanted, atol=1e-5)


def test_scores_stay_what_they_are(spec, open_backend, pace):
    backend = open_backend(spec)
    kept = [backend.infer(noise(seed)[None], spec.variant, spec.budget)[0] for seed in range(5)]
    assert all(isinstance(prediction.scores, DeviceScores) for prediction in kept)
    for seed, prediction in enumerate(kept):
        again = backend.infer(noise(seed)[None], spec.variant, spec.budget)[0].on_host()
        assert np.array_equal(prediction.scores, again.scores) and again.scores.dtype == np.float32
    backend.close()
    with pytest.raises(RuntimeError, match='closed'):
        kept[0].scores.__array__()
    with pytest.raises(RuntimeError, match='closed'):
        backend.infer(noise()[None], spec.variant, spec.budget)


def test_operating_points_come_and_go(spec, open_backend):
    backend = open_backend(spec)
    points = [(Variant.parse(variant), choose_budget(spec.budget, **options)) for variant, options in POINTS[:5]]
    assert len(points) > MAX_OPEN
    found = [np.asarray(backend.infer(noise()[None], *point)[0].scores) for point in points]
    for point, scores in zip(points, found):
        assert np.array_equal(backend.infer(noise()[None], *point)[0].scores, scores)


def test_logits_and_crops_are_finished_on_the_cpu(tmp_path, cache, driver, open_pipeline):
    forms = {
        'sliding': {'sliding_window': SlidingWindow(96, 64), 'inference': 'sliding'},
        'linear': {'head': 'linear'},
        'mixed': {'head': 'segvit_atm'},
    }
    before = driver.host_cuda_kernels()
    for name, form in forms.items():
        model = write_lively_model(tmp_path / name, policy='patch_mlp', variant=Variant.parse('cts'), **form)
        reference = load_pipeline(model, 'onnxruntime', cache_dir=cache)
        pipeline = open_pipeline(model, 'cts', {})
        for image in (noise(1), noise(2, (100, 180))):
            assert_same(pipeline(image), reference(image))
    assert driver.host_cuda_kernels() == before


def test_what_a_runner_refuses(spec, cache, driver):
    gpu = Gpu()
    queues = open_queues(gpu)
    graphs = CachedGraphs(spec, 'float32', cache).find(Variant.parse('dtop@8'), spec.budget, 1, (96, 128))
    runners = {part: TensorRtRunner(host_gpu.HostEngine(path, driver, 48), queues, part)
               for part, path in graphs.files.items()}  # fmt: skip
    image = noise()[None]
    with pytest.raises(GraphError, match=r'head: input image: expected shape \(1, 96, 128, 3\), got \(1, 96, 64, 3\)'):
        runners['head'].run({'image': image[:, :, :64]}, ())
    with pytest.raises(GraphError, match='head: input image: expected uint8, got float32'):
        runners['head'].run({'image': image.astype(np.float32)}, ())
    out = runners['head'].run({'image': image}, ())
    feeds = {'tokens': out['next_tokens'], 'masks_head': out['masks'], 'row_of_cell': np.arange(48, dtype=np.int32),
             **out}  # fmt: skip
    with pytest.raises(GraphError, match=r'tail: input stay cannot have shape \(49,\), at most \(48,\)'):
        runners['tail'].run({**feeds, 'stay': np.zeros(49, np.int32)}, ('scores',))
    scores = runners['tail'].run({**feeds, 'stay': np.arange(48, dtype=np.int32)}, ('scores',))['scores']
    assert scores.dtype == np.float32 and np.isfinite(scores).all()
    for runner in runners.values():
        runner.close()
    close_queues(queues)
    gpu.close()
    assert driver.host_cuda_live() == 0


@pytest.fixture
def engines(driver, tmp_path, monkeypatch):
    """A TensorRT whose engines are the ONNX files; lists what it builds."""
    built = []

    class Runtime:
        def __init__(self, logger):
            assert logger == 'logger'

        def deserialize_cuda_engine(self, data):
            if len(data) < 5000:
                return None
            (tmp_path / f'{len(data)}.onnx').write_bytes(data)
            return host_gpu.HostEngine(tmp_path / f'{len(data)}.onnx', driver, 48)

    def build_plan(library, path, info, options):
        built.append(path)
        return Plan(path.read_bytes(), ())

    library = SimpleNamespace(name='host 1', logger='logger', module=SimpleNamespace(Runtime=Runtime))
    monkeypatch.setattr(tensorrt_backend, 'load_tensorrt', lambda: library)
    monkeypatch.setattr(tensorrt_backend, 'build_plan', build_plan)
    return built


@pytest.mark.parametrize(('variant', 'options'), [POINTS[2], POINTS[-1]])
def test_engines_are_built_kept_and_run(driver, tiny, spec, cache, tmp_path, engines, variant, options):
    (tmp_path / 'graphs').symlink_to(cache / 'graphs')
    expected = load_pipeline(tiny, 'onnxruntime', 'cpu', 'float32', variant, cache_dir=cache, **options)(noise())

    def run(**more):
        pipeline = load_pipeline(tiny, 'tensorrt', 'cuda:0', 'float32', variant, cache_dir=tmp_path, **options, **more)
        assert pipeline.device_name == 'Host (cuda:0)'
        assert_same(pipeline(noise()), expected)
        pipeline.close()
        assert driver.host_cuda_live() == 0
        return len(engines)

    parts = run()
    assert parts == (2 if 'keep' in options else 4)
    assert run() == parts, 'kept'
    files = sorted((tmp_path / 'engines').rglob('*.engine'))
    files[0].write_bytes(files[0].read_bytes()[:6000])
    assert run() == parts + 1, 'the truncated one is built again'
    graphs = CachedGraphs(spec, 'float32', cache).find(
        Variant.parse(variant), choose_budget(spec.budget, **options), 1, (96, 128))  # fmt: skip
    write_engines({graphs.info.part_path(tmp_path / 'm.engine', part): (
        path.read_bytes(), EngineInfo(graphs.info, part, sha256_of(path), 'host 1', (86, 89))
    ) for part, path in graphs.files.items()})  # fmt: skip
    assert run(graph=tmp_path / 'm.engine') == parts + 1, 'engine files are not built'


def test_engines_of_others(tiny, spec, cache, tmp_path, engines):
    graphs = CachedGraphs(spec, 'float32', cache).find(Variant(), spec.budget, 1, (96, 128))
    data = graphs.files['whole'].read_bytes()
    for content, tensorrt, capability, complaint in [
        (data, 'host 0', 89, 'm.engine: was built with host 0, expected host 1'),
        (data, 'host 1', 86, r'was built for compute capability 86, expected 89 \(Host\)'),
        (data[:1000], 'host 1', 89, 'm.engine: host 1 does not load it; build it again'),
    ]:
        info = EngineInfo(graphs.info, 'whole', '', tensorrt, (capability,))
        write_engines({tmp_path / 'm.engine': (content, info)})
        pipeline = load_pipeline(tiny, 'tensorrt', 'cuda', 'float32', 'dense', graph=tmp_path / 'm.engine')
        with pytest.raises(GraphError, match=complaint):
            pipeline(noise())
        pipeline.close()


def test_a_gpu_that_is_not_there(driver):
    with pytest.raises(ValueError, match="device 'cuda:1': expected an index below 1"):
        Gpu(1)
    assert driver.host_cuda_live() == 0
    assert os.environ.get('HOST_CUDA_EAGER', '') == ''
