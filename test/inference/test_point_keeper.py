"""What runs is what is asked for once it is ready, or what keeps the budget."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
from tiny_model import write_tiny_model

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.inference.latency_budget import FrameCost, LatencyTarget
from hybrid_seg_ros.inference.point_keeper import PointKeeper, Wanted
from hybrid_seg_ros.inference.points_table import OperatingPoint, name_point
from hybrid_seg_ros.model_spec import TokenBudget, Variant

DENSE, CTS = Wanted(Variant(), TokenBudget()), Wanted(Variant(merges=True), TokenBudget())
BUDGET = dataclasses.replace(DENSE, target=LatencyTarget(latency_ms=100.0))
TIMEOUT_S = 10.0


def point(name, miou, gflops):
    return OperatingPoint(name, Variant.parse(name), TokenBudget(keep=0.5), miou, gflops, {'total': 48})


POINTS = (point('hybrid@8', 60.0, 1.0), point('cts', 65.0, 2.0), point('dense', 70.0, 4.0))
COSTS = {'hybrid@8': 20.0, 'cts': 40.0, 'dense': 80.0}


class Pipeline:
    """Stands for a pipeline whose points must be made first, which takes until `gate` is set."""

    def __init__(self, ready=()):
        self.operating_point = (Variant(), TokenBudget())
        self.ready, self.kept_open, self.batches = set(ready), 0, []
        self.gate, self.error = threading.Event(), None
        self.gate.set()

    @property
    def runs(self):
        return str(self.operating_point[0])

    def set_operating_point(self, variant, budget):
        self.operating_point = (variant, budget)

    def is_ready(self, variant, budget):
        return str(variant) in self.ready

    def warm_up(self, variant, budget, batch):
        assert self.gate.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        self.batches.append(batch)
        self.ready.add(str(variant))

    def keep_open(self, count):
        self.kept_open = count

    def time_inference(self, variant, budget):
        return COSTS[str(variant)]


def follow_until(keeper, wanted, condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition() and time.monotonic() < deadline:
        keeper.follow(wanted, 1, 0.0)
        time.sleep(0.005)
    assert condition()


def test_what_is_ready_runs_at_once():
    pipeline = Pipeline(ready=['dense', 'cts'])
    keeper = PointKeeper(pipeline)
    keeper.start(DENSE, 1, 0.0)
    keeper.follow(CTS, 1, 0.0)
    assert pipeline.runs == 'cts' and keeper.state.point == name_point(CTS.variant, CTS.budget)
    assert keeper.state.preparing == keeper.state.problem == ''


def test_what_must_be_made_is_made_while_the_present_point_goes_on():
    pipeline = Pipeline()
    keeper = PointKeeper(pipeline, batch=2)
    keeper.start(DENSE, 1, 0.0)
    pipeline.gate.clear()
    for _ in range(3):
        keeper.follow(CTS, 1, 0.0)
    assert pipeline.runs == 'dense' and keeper.state.preparing.startswith('cts')
    pipeline.gate.set()
    follow_until(keeper, CTS, lambda: pipeline.runs == 'cts')
    assert keeper.state.preparing == '' and pipeline.batches == [2, 2]
    assert keeper.close(TIMEOUT_S)


def test_what_cannot_be_made_is_said_once_and_the_present_point_goes_on():
    pipeline = Pipeline()
    keeper = PointKeeper(pipeline)
    keeper.start(DENSE, 1, 0.0)
    pipeline.error = RuntimeError('no memory')
    follow_until(keeper, CTS, lambda: keeper.state.problem)
    assert pipeline.runs == 'dense' and 'cannot run cts merged' in keeper.state.problem
    assert keeper.state.problem.endswith('no memory')
    pipeline.error = None
    for _ in range(3):
        keeper.follow(CTS, 1, 0.0)
    assert keeper.state.preparing == '', 'not tried again until something else is asked for'
    keeper.follow(DENSE, 1, 0.0)
    assert keeper.state.problem == ''
    follow_until(keeper, CTS, lambda: pipeline.runs == 'cts')


def test_what_is_no_longer_asked_for_is_not_run_when_it_is_ready():
    pipeline = Pipeline()
    keeper = PointKeeper(pipeline)
    keeper.start(DENSE, 1, 0.0)
    pipeline.gate.clear()
    keeper.follow(CTS, 1, 0.0)
    pipeline.gate.set()
    follow_until(keeper, DENSE, lambda: not keeper.state.preparing)
    assert pipeline.runs == 'dense'


def test_what_is_ready_does_not_wait_for_what_is_being_made():
    pipeline = Pipeline(ready=['dtop@8'])
    keeper = PointKeeper(pipeline)
    keeper.start(DENSE, 1, 0.0)
    pipeline.gate.clear()
    keeper.follow(CTS, 1, 0.0)
    other = Wanted(Variant.parse('dtop@8'), TokenBudget())
    keeper.follow(other, 1, 0.0)
    assert pipeline.runs == 'dtop@8' and keeper.state.preparing.startswith('cts')
    third = Wanted(Variant.parse('hybrid@8'), TokenBudget())
    keeper.follow(third, 1, 0.0)
    pipeline.gate.set()
    follow_until(keeper, third, lambda: pipeline.runs == 'hybrid@8')
    assert pipeline.ready >= {'cts', 'hybrid@8'} and keeper.state.preparing == ''


def test_a_budget_starts_at_what_fits_and_follows_the_load():
    pipeline = Pipeline()
    keeper = PointKeeper(pipeline, POINTS)
    keeper.start(BUDGET, 1, 0.0)
    assert pipeline.kept_open >= len(POINTS) and pipeline.ready == {'dense', 'cts', 'hybrid@8'}
    assert pipeline.runs == 'cts'  # dense alone would take 80 of 100 ms
    state = keeper.state
    assert (state.target, state.position, state.miou, state.gflops) == ('100 ms', '2 of 3', 65.0, 2.0)
    for frame in range(5):
        keeper.observe(FrameCost(150.0, 150.0, 140.0), 0.1 * frame)
    assert pipeline.runs == 'hybrid@8' and keeper.state.changes == 1 and 'p95 was' in keeper.state.reason
    for frame in range(200):
        keeper.observe(FrameCost(30.0, 30.0, 20.0), 1 + 0.1 * frame)
        if keeper.state.changes == 2:
            break
    assert pipeline.runs == 'cts' and 'there is room' in keeper.state.reason


def test_a_budget_set_live_is_prepared_beside_the_running_point_and_taken_back():
    pipeline = Pipeline()
    keeper = PointKeeper(pipeline, POINTS)
    keeper.start(DENSE, 1, 0.0)
    follow_until(keeper, BUDGET, lambda: keeper.state.target)
    assert pipeline.runs == 'cts'
    keeper.follow(DENSE, 1, 0.0)
    assert pipeline.runs == 'dense' and keeper.state.target == ''
    for _ in range(5):
        keeper.observe(FrameCost(500.0, 500.0, 400.0), 1.0)
    assert pipeline.runs == 'dense'


def test_points_are_timed_one_between_two_images():
    pipeline = Pipeline()
    timed = []
    pipeline.time_inference = lambda variant, budget: timed.append(str(variant)) or COSTS[str(variant)]
    keeper = PointKeeper(pipeline, POINTS)
    keeper.start(DENSE, 1, 0.0)
    assert not timed
    most = 0

    def one_more():
        nonlocal most
        before = len(timed)
        keeper.follow(BUDGET, 1, 0.0)
        most = max(most, len(timed) - before)
        return bool(keeper.state.target)

    deadline = time.monotonic() + TIMEOUT_S
    while not one_more() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert keeper.state.target and most == 1 and timed[:4] == ['hybrid@8', 'cts', 'dense', 'hybrid@8']


def test_a_changed_budget_keeps_the_point_that_the_load_asked_for():
    pipeline = Pipeline()
    keeper = PointKeeper(pipeline, POINTS)
    keeper.start(BUDGET, 1, 0.0)
    for _ in range(5):
        keeper.observe(FrameCost(150.0, 150.0, 140.0), 0.1)
    keeper.follow(dataclasses.replace(BUDGET, target=LatencyTarget(latency_ms=200.0)), 1, 1.0)
    assert pipeline.runs == 'hybrid@8' and keeper.state.target == '200 ms'


def test_a_budget_without_a_table():
    with pytest.raises(ValueError, match='a target of 100 ms needs a table'):
        PointKeeper(Pipeline()).start(BUDGET, 1, 0.0)


def test_graphs_are_exported_beside_a_running_pipeline(tmp_path):
    """The real thing, with ONNX Runtime: the first frame after the change runs the old point, a later one the new."""
    model = write_tiny_model(tmp_path, policy='patch_mlp')
    pipeline = load_pipeline(model, 'onnxruntime', variant='dense', cache_dir=tmp_path / 'cache')
    keeper = PointKeeper(pipeline)
    image = np.zeros((96, 128, 3), np.uint8)
    try:
        keeper.start(DENSE, 1, 0.0)
        keeper.follow(CTS, 1, 0.0)
        assert list(pipeline(image).tokens.stages.values()) == [48, 48]
        deadline = time.monotonic() + 60
        while keeper.state.preparing and time.monotonic() < deadline:
            keeper.follow(CTS, 1, 0.0)
            assert pipeline(image).tokens.total == 48
        assert list(pipeline(image).tokens.stages.values())[1] < 48, keeper.state
    finally:
        assert keeper.close(TIMEOUT_S)
        pipeline.close()
