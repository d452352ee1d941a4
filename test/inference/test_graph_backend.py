"""Exported graphs behind one backend: what is loaded when, for how many images at once, and closing at any time."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.inference.backends import graph_backend
from hybrid_seg_ros.inference.backends.graph_backend import GraphBackend, finished_by_threshold
from hybrid_seg_ros.inference.backends.graph_source import CachedGraphs
from hybrid_seg_ros.inference.backends.onnx_backend import create_onnx_backend
from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.network import token_pruning

DENSE, CTS, BUDGET = Variant(), Variant(merges=True), TokenBudget(keep=0.5)
SIZE_HW = (96, 128)
TIMEOUT_S = 60.0


@pytest.fixture
def loads(monkeypatch):
    """List the batch of each set of graphs that is loaded."""
    batches, load = [], graph_backend.GraphNetwork.__init__

    def noted(self, graphs, open_graph):
        batches.append(graphs.info.batch)
        load(self, graphs, open_graph)

    monkeypatch.setattr(graph_backend.GraphNetwork, '__init__', noted)
    return batches


def images(count):
    return np.random.default_rng(count).integers(0, 256, (count, *SIZE_HW, 3), np.uint8)


@pytest.fixture
def backend(spec, cache):
    backend = create_onnx_backend(CachedGraphs(spec, 'float32', cache), 'cpu')
    yield backend
    backend.close()


def test_a_batch_that_was_prepared_is_run_at_once_and_others_one_by_one(backend, loads):
    backend.warm_up(SIZE_HW, CTS, BUDGET)
    assert len(backend.infer(images(3), CTS, BUDGET)) == 3 and loads == [1]
    backend.warm_up(SIZE_HW, CTS, BUDGET, batch=2)
    assert loads == [1, 2]
    together, alone = backend.infer(images(2), CTS, BUDGET), [backend.infer(i[None], CTS, BUDGET)[0] for i in images(2)]
    for one, other in zip(together, alone):
        assert np.allclose(one.scores, other.scores, atol=1e-4) and one.tokens.stages == other.tokens.stages
    assert loads == [1, 2]


def test_ready_is_what_is_loaded_and_the_oldest_goes_unless_more_are_kept(backend, monkeypatch):
    monkeypatch.setattr(backend, '_max_open', 1)
    assert not backend.is_ready(SIZE_HW, CTS, BUDGET)
    backend.warm_up(SIZE_HW, CTS, BUDGET)
    assert backend.is_ready(SIZE_HW, CTS, BUDGET) and not backend.is_ready(SIZE_HW, DENSE, BUDGET)
    backend.warm_up(SIZE_HW, DENSE, BUDGET)
    assert backend.is_ready(SIZE_HW, DENSE, BUDGET) and not backend.is_ready(SIZE_HW, CTS, BUDGET)
    backend.keep_open(2)
    backend.warm_up(SIZE_HW, CTS, BUDGET)
    assert backend.is_ready(SIZE_HW, DENSE, BUDGET) and backend.is_ready(SIZE_HW, CTS, BUDGET)


class SlowSource:
    """Graphs that are found only when `gate` is set."""

    def __init__(self, source):
        self._source = source
        self.asked, self.gate = threading.Event(), threading.Event()

    def find(self, variant, budget, batch, size_hw):
        if variant == CTS:
            self.asked.set()
            assert self.gate.wait(TIMEOUT_S)
        return self._source.find(variant, budget, batch, size_hw)


@pytest.fixture
def slow(spec, cache):
    """Return a backend, its slow source, and the list of times that its device was freed."""
    freed, errors = [], []
    whole = create_onnx_backend(CachedGraphs(spec, 'float32', cache), 'cpu')
    source = SlowSource(whole._source)
    backend = GraphBackend(source, whole._open_graph, 'cpu', lambda: freed.append(True))

    def prepare():
        try:
            backend.warm_up(SIZE_HW, CTS, BUDGET)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=prepare, daemon=True)
    backend.warm_up(SIZE_HW, DENSE, BUDGET)
    thread.start()
    assert source.asked.wait(TIMEOUT_S)
    yield backend, source, thread, freed, errors
    source.gate.set()
    thread.join(TIMEOUT_S)
    backend.close()


def test_images_are_segmented_while_another_point_is_being_made(slow):
    backend, source, thread, _, errors = slow
    assert len(backend.infer(images(1), DENSE, BUDGET)) == 1
    assert not backend.is_ready(SIZE_HW, CTS, BUDGET)
    source.gate.set()
    thread.join(TIMEOUT_S)
    assert backend.is_ready(SIZE_HW, CTS, BUDGET) and not errors


def test_closing_does_not_wait_for_what_is_being_made_and_the_device_is_freed_after_it(slow):
    backend, source, thread, freed, errors = slow
    backend.close()
    assert not freed
    with pytest.raises(RuntimeError, match='closed'):
        backend.infer(images(1), DENSE, BUDGET)
    source.gate.set()
    thread.join(TIMEOUT_S)
    assert freed == [True] and errors == ['the backend is closed']
    backend.close()
    assert freed == [True]


def test_a_pipeline_prepares_batches_of_its_operating_point(tiny, cache, loads):
    pipeline = load_pipeline(tiny, 'onnxruntime', variant='cts', cache_dir=cache)
    pipeline.warm_up(batch=2)
    results = pipeline.segment_batch(list(images(2)))
    assert len(results) == 2 and loads == [1, 2]
    pipeline.close()


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
@pytest.mark.parametrize('keep_per_class', [5, 1, 0])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize('steps', [None, 10, 2], ids=['random', 'tied', 'mostly equal'])
def test_a_threshold_decides_as_in_pytorch(steps, threshold, keep_per_class, dtype):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        confidence = rng.random(60) if steps is None else rng.integers(0, steps + 1, 60) / steps  # 0.3 is among them
        confidence, token_class = confidence.astype(dtype), rng.integers(0, 4, 60)
        if seed == 0:
            confidence += dtype(1)  # all would leave
        budget = TokenBudget(threshold=threshold, keep_per_class=keep_per_class)
        expected = token_pruning.finished_by_threshold(
            torch.from_numpy(confidence)[None], torch.from_numpy(token_class)[None], threshold, keep_per_class)[0]
        assert np.array_equal(finished_by_threshold(confidence, token_class, budget), expected.numpy())
