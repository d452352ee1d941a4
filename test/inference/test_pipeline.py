"""From an RGB array to a Segmentation, and what is refused."""

import platform

import numpy as np
import pytest
from tiny_model import write_tiny_model

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.inference.pipeline import choose_budget
from hybrid_seg_ros.model_spec import ModelSpecError, SlidingWindow, TokenBudget, Variant
from hybrid_seg_ros.process_memory import keep_freed_memory

SIZES = [(96, 128), (100, 77), (31, 200), (250, 333), (1, 2)]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'), sliding_window=SlidingWindow(96, 64))


@pytest.fixture(scope='module')
def pipeline(model):
    return load(model)


def load(model, **options):
    return load_pipeline(model, **{'backend': 'pytorch', 'device': 'cpu', **options})


def picture(size_hw, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


@pytest.mark.parametrize('size_hw', SIZES)
def test_labels_of_the_image_s_size(pipeline, size_hw):
    result = pipeline(picture(size_hw))
    assert result.labels.shape == size_hw == pipeline.output_size_hw(size_hw)
    assert result.labels.max() < 11 and 0 <= result.confidence.min() <= result.confidence.max() <= 1
    assert result.tokens.grid_hw == (6, 8) and list(result.tokens.stages) == ['total', 'merged', 'kept@6', 'kept@8']
    assert result.tokens.merged_windows == 5 and result.tokens.entering == 48 - 15
    assert len(result.tokens.areas) == 1 and result.timings.total_ms > 0


@pytest.mark.parametrize('size_hw', SIZES)
def test_output_of_the_network_s_size_is_never_larger_than_the_image(model, size_hw):
    pipeline = load(model, output_size='network')
    labels = pipeline(picture(size_hw)).labels
    assert labels.shape == pipeline.output_size_hw(size_hw)
    assert labels.shape[0] <= min(size_hw[0], 96) or labels.shape == size_hw
    assert labels.shape[0] <= size_hw[0] and labels.shape[1] <= size_hw[1]


def test_a_frame_twice_gives_the_same(pipeline):
    first, second = pipeline(picture((100, 77))), pipeline(picture((100, 77)))
    assert np.array_equal(first.labels, second.labels) and np.array_equal(first.confidence, second.confidence)


@pytest.mark.parametrize('inference', ['whole', 'sliding'])
def test_a_stream_gives_what_calls_give_in_order(model, inference):
    pipeline = load(model, inference=inference)
    images = [picture(size_hw, seed) for seed, size_hw in enumerate([(96, 128), (100, 77), (96, 128), (31, 200)])]
    taken = []
    results = pipeline.stream(taken.append(len(taken)) or image for image in images)
    assert not taken, 'nothing is taken before it is asked for'
    first = next(results)
    assert taken == [0]
    for image, result in zip(images, [first, *results]):
        expected = pipeline(image)
        assert np.array_equal(result.labels, expected.labels)
        assert np.array_equal(result.confidence, expected.confidence)
        assert result.tokens.stages == expected.tokens.stages and result.tokens.areas == expected.tokens.areas
        assert result.timings.inference_ms > 0
    assert taken == [0, 1, 2, 3] and list(pipeline.stream([])) == []


@pytest.mark.parametrize('inference', ['whole', 'sliding'])
@pytest.mark.parametrize('variant', ['dense', 'hybrid@6+8'])
def test_a_batch_gives_what_calls_give(model, inference, variant):
    pipeline = load(model, inference=inference, variant=variant)
    images = [picture(size_hw, seed) for seed, size_hw in enumerate([(96, 128), (100, 77), (250, 333)])]
    for image, result in zip(images, pipeline.segment_batch(images)):
        expected = pipeline(image)
        assert (result.labels != expected.labels).mean() < 0.01  # a batch rounds in another order
        assert np.allclose(result.confidence, expected.confidence, atol=1e-3)
        assert result.tokens.stages.keys() == expected.tokens.stages.keys()
        assert result.tokens.areas == expected.tokens.areas
        assert result.timings.inference_ms > 0
    assert pipeline.segment_batch([]) == []
    with pytest.raises(ValueError, match='expected an RGB image'):
        pipeline.segment_batch([images[0], images[1][0]])


@pytest.mark.parametrize('inference', ['whole', 'sliding'])
def test_labels_without_confidence_are_the_same(model, inference):
    pipeline = load(model, inference=inference)
    images = [picture((96, 128)), picture((100, 77))]
    expected = [pipeline(image) for image in images]
    pipeline.with_confidence = False
    for each, result in zip(expected, [pipeline(images[0]), *pipeline.segment_batch(images[1:])]):
        assert np.array_equal(result.labels, each.labels)
        assert result.confidence is None or inference == 'sliding'
    pipeline.with_confidence = True
    assert np.array_equal(pipeline(images[0]).confidence, expected[0].confidence)


def test_a_point_can_be_timed_whether_it_runs_or_not(pipeline):
    before = pipeline.operating_point
    assert pipeline.time_inference(Variant(), TokenBudget()) > 0
    assert pipeline.operating_point == before and pipeline.is_ready(Variant(), TokenBudget())


def test_what_a_stream_does_not_take(pipeline):
    results = pipeline.stream([picture((96, 128)), picture((96, 128))[0]])
    with pytest.raises(ValueError, match='expected an RGB image'):
        list(results)


def test_the_image_is_left_alone(pipeline):
    image = picture((96, 128))
    before = image.copy()
    pipeline(image)
    pipeline(image[:, ::-1, ::-1])
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    'bad',
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        'x',
    ],
)
def test_what_is_no_image(pipeline, bad):
    with pytest.raises(ValueError, match='expected an RGB image'):
        pipeline(bad)


def test_live_operating_point(model):
    pipeline, image = load(model), picture((96, 128))
    pipeline.set_operating_point('dense')
    assert pipeline(image).tokens.stages == {'total': 48, 'merged': 48}
    dense = pipeline(image).labels
    pipeline.set_operating_point(Variant.parse('dtop@8'), TokenBudget(keep=0.5))
    assert pipeline(image).tokens.stages == {'total': 48, 'merged': 48, 'kept@8': 24}
    pipeline.set_operating_point(budget=TokenBudget(keep=1.0))
    assert str(pipeline.variant) == 'dtop@8'
    assert (pipeline(image).labels == dense).mean() > 0.999
    pipeline.set_operating_point(Variant.parse('cts'), TokenBudget(merged_windows=12))
    assert pipeline(image).tokens.merged_windows == 12


def test_an_illegal_operating_point_changes_nothing(model):
    pipeline = load(model)
    before = (pipeline.variant, pipeline.budget)
    with pytest.raises(ModelSpecError, match='no auxiliary head after layer 7.*legal for tiny are dense, cts, dtop@6'):
        pipeline.set_operating_point(Variant.parse('dtop@7'))
    with pytest.raises(ValueError, match='budget: expected a TokenBudget.*got 0.5'):
        pipeline.set_operating_point('cts', 0.5)
    assert (pipeline.variant, pipeline.budget) == before


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'variant': 'fast'}, 'unknown variant .*dense, cts, dtop@6'),
        ({'variant': 'dtop@9'}, 'legal for tiny are dense'),
        ({'backend': 'tensorflow'}, 'unknown backend .*pytorch'),
        ({'precision': 'int8'}, 'legal for pytorch are auto, float32, bfloat16, float16'),
        ({'precision': 'float16'}, 'float16 needs a CUDA device'),
        ({'device': 'tpu'}, 'legal are cpu, cuda'),
        ({'output_size': 'screen'}, 'legal are image, network'),
        ({'inference': 'tiled'}, 'legal are whole, sliding'),
        ({'keep': 0.5, 'threshold': 0.5}, 'not both'),
        ({'keep': 0}, 'keep: expected'),
        ({'threshold': 0.0}, 'threshold: expected'),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(model, **arguments)


def test_no_such_model(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.yaml'):
        load(tmp_path / 'none.yaml')


def test_bfloat16_is_close_to_float32(model):
    image = picture((96, 128))
    exact = load(model, variant='dense')(image)
    rounded = load(model, variant='dense', precision='bfloat16')(image)
    assert np.abs(exact.confidence - rounded.confidence).max() < 0.02


def test_choose_budget():
    own = TokenBudget(threshold=0.7, keep=0.5)
    assert choose_budget(own) is own
    assert choose_budget(own, threshold=0.8) == TokenBudget(threshold=0.8)
    assert choose_budget(TokenBudget(), keep=[3, 0.5]).keep == (3, 0.5)


def test_sliding_window_on_one_crop_is_the_whole_frame(tmp_path):
    spec = {'input_size_hw': (96, 96), 'sliding_window': SlidingWindow(96, 64)}
    model = write_tiny_model(tmp_path, **spec)
    image = picture((96, 96))
    whole, sliding = load(model)(image), load(model, inference='sliding')(image)
    assert (whole.labels == sliding.labels).mean() > 0.999
    assert whole.tokens.stages == sliding.tokens.stages
    wide = load(model, inference='sliding')(picture((60, 150)))
    assert wide.labels.shape == (60, 150)
    assert len(wide.tokens.areas) == 4 and wide.tokens.total == 4 * 36  # 96 x 240: starts 0, 64, 128, 144


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    assert keep_freed_memory() == (platform.libc_ver()[0] == 'glibc')
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    assert not keep_freed_memory()
