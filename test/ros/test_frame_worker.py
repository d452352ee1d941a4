"""The worker thread, with a model and a camera that do as the test says."""

import dataclasses
import threading
import time
import types

import numpy as np
import pytest
from sensor_msgs.msg import Image

from hybrid_seg_ros.inference.film import Film
from hybrid_seg_ros.inference.point_keeper import Wanted
from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.ros import frame_worker
from hybrid_seg_ros.ros.camera import Frame, FrameSlot
from hybrid_seg_ros.ros.frame_worker import FrameWorker, Stuck
from hybrid_seg_ros.ros.health.camera_monitor import CameraMonitor
from hybrid_seg_ros.ros.image_decoding import BadFrameError
from hybrid_seg_ros.ros.model_loading import Model
from hybrid_seg_ros.ros.parameters import LiveSettings
from hybrid_seg_ros.segmentation import Segmentation, StageTimings, TokenReport

ONES = np.ones((2, 3), np.uint8)
RESULT = Segmentation(ONES, np.ones((2, 3), np.float32), TokenReport((2, 3), ONES, 0 * ONES, 6), StageTimings(1, 2, 3))
TIMEOUT_S = 5.0


class FakePipeline:
    """Counts its calls; raises the error that it is given."""

    def __init__(self):
        self.spec = None
        self.operating_point = (Variant.parse('dense'), TokenBudget())
        self.threads, self.points, self.batches, self.error, self.is_closed = [], [], [], None, False
        self.started, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, image):
        return self.segment_batch([image])[0]

    def segment_batch(self, images, films=None, stamps_s=()):
        self.batches.append(len(images))
        self.threads.append(threading.current_thread().name)
        self.started.set()
        assert self.gate.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        return [RESULT] * len(images)

    def set_operating_point(self, variant, budget):
        self.points.append(str(variant))

    def keep_open(self, count):
        pass

    def is_ready(self, variant, budget):
        return True

    def warm_up(self, variant, budget, batch):
        self.threads.append(threading.current_thread().name)

    def close(self):
        self.is_closed = True


class FakeCamera:
    """A camera whose published stamps are kept."""

    def __init__(self, topic='/image'):
        self.monitor, self.published, self.film = CameraMonitor(), [], Film()
        self.slot, self.topic, self.info, self.is_live = FrameSlot(), topic, None, True
        self.slot.open()
        self.conversion_error = None
        self.publishers = types.SimpleNamespace(
            needs_confidence=False,
            publish_mask=lambda header, result: self.published.append(header.stamp.sec),
            publish_companions=lambda *arguments: None,
            publish_pictures=lambda *arguments: None,
        )

    def to_rgb(self, frame):
        if self.conversion_error is not None:
            raise self.conversion_error
        return np.zeros((2, 3, 3), np.uint8)

    def send(self, worker, second):
        message = Image()
        message.header.stamp.sec = second
        if self.slot.put(Frame(message, 0.0)):
            worker.request(self)


SETTINGS = LiveSettings()


@pytest.fixture
def settings(monkeypatch):
    """Make live settings that the test may change."""
    monkeypatch.setattr(
        LiveSettings, 'wanted', lambda self, spec: Wanted(Variant.parse(self.variant or 'dense'), TokenBudget())
    )
    current = types.SimpleNamespace(value=SETTINGS)
    monkeypatch.setattr(frame_worker, 'read_live_settings', lambda node: current.value)
    return current


@pytest.fixture
def lines():
    return []


@pytest.fixture
def make_worker(settings, lines):
    """Make a worker that serves as many cameras as asked for; it has them as `cameras`."""
    workers = []

    def log(text, throttle_duration_sec=0.0):
        lines.append(text)

    node = types.SimpleNamespace(get_logger=lambda: types.SimpleNamespace(warning=log, error=log))

    def make(cameras=1, **options):
        workers.append(FrameWorker(node, lambda: Model(FakePipeline()), **options))
        workers[-1].cameras = [FakeCamera(f'/camera{index}') for index in range(cameras)]
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()
        assert worker.pipeline.is_closed


@pytest.fixture
def worker(make_worker):
    return make_worker()


@pytest.fixture
def camera(worker):
    return worker.cameras[0]


def test_the_model_is_warmed_up_and_used_on_one_thread(worker, camera):
    for second in (1, 2):
        camera.send(worker, second)
        worker.finish()
    assert camera.published == [1, 2]
    assert len(worker.pipeline.threads) == 3 and set(worker.pipeline.threads) == {'segmentation'}


def test_the_newest_frame_wins_and_finish_waits_for_it(worker, camera):
    worker.pipeline.gate.clear()
    camera.send(worker, 1)
    assert worker.pipeline.started.wait(TIMEOUT_S)
    for second in (2, 3, 4):
        camera.send(worker, second)
    worker.pipeline.gate.set()
    worker.finish()
    assert camera.published == [1, 4] and camera.slot.dropped == 2


def test_cameras_are_served_in_turn(make_worker):
    served = []
    worker = make_worker(cameras=2)
    for index, camera in enumerate(worker.cameras):
        camera.publishers.publish_companions = lambda *arguments, index=index: served.append(index)
    worker.pipeline.gate.clear()
    for second in range(5):
        for camera in worker.cameras:
            camera.send(worker, second)
    worker.pipeline.gate.set()
    worker.finish()
    assert served[:3] in ([0, 1, 0], [0, 1]) and set(served) == {0, 1}


def test_a_failing_backend_is_reported_and_the_next_frame_segmented(make_worker, lines):
    told = []
    worker = make_worker(on_failure=told.append)
    (camera,) = worker.cameras
    for second, error in enumerate([RuntimeError('CUDA out of memory')] * 2 + [None, RuntimeError('no')]):
        worker.pipeline.error = error
        camera.send(worker, second)
        worker.finish()
        if second == 1:
            assert camera.monitor.health(0.0).failure == 'out of memory: RuntimeError: CUDA out of memory'
            assert 'Traceback' in lines[-1] and camera.published == []
        if second == 2:
            assert camera.published == [2] and camera.monitor.health(0.0).failure == ''
    assert told == [1, 2, 1], 'in a row'


def test_a_bad_frame_is_not_a_failure(worker, camera, lines):
    camera.conversion_error = BadFrameError('too short')
    camera.send(worker, 1)
    worker.finish()
    health = camera.monitor.health(0.0)
    assert (health.bad_frames, health.failures, lines) == (1, 0, ['bad frame on /camera0: too short'])


def test_a_failure_of_a_batch_is_that_of_cameras_that_were_not_answered(make_worker):
    """One camera's frame is bad, one is answered before publishing fails for the third, which alone has failed."""
    told = []
    worker = make_worker(cameras=3, at_once=3, wait_s=TIMEOUT_S, on_failure=told.append)
    bad, answered, failing = worker.cameras
    bad.conversion_error = BadFrameError('too short')

    def publish_pictures(*arguments):
        raise RuntimeError('no')

    failing.publishers.publish_pictures = publish_pictures
    for camera in worker.cameras:
        camera.send(worker, 1)
    worker.finish()
    assert [camera.monitor.health(0.0).failures for camera in worker.cameras] == [0, 0, 1]
    assert (answered.published, told) == ([1], [1])


def test_live_settings_reach_the_model_before_the_next_frame_and_only_when_they_change(worker, camera, settings):
    for second, variant in enumerate(['', 'cts', 'cts']):
        settings.value = dataclasses.replace(SETTINGS, variant=variant)
        camera.send(worker, second)
        worker.finish()
    assert worker.pipeline.points == ['dense', 'cts']


def test_disabled_frames_are_left_alone(worker, camera, settings):
    settings.value = dataclasses.replace(SETTINGS, enabled=False)
    camera.send(worker, 1)
    worker.finish()
    assert camera.published == [] and camera.slot.dropped == 0


def test_a_model_that_cannot_be_loaded_leaves_no_thread_behind(settings):
    before = threading.active_count()

    def fail():
        raise FileNotFoundError('no such model')

    with pytest.raises(FileNotFoundError, match='no such model'):
        FrameWorker(None, fail)
    assert threading.active_count() == before


def test_a_model_that_cannot_be_warmed_up_is_closed(settings, monkeypatch):
    pipeline = FakePipeline()
    monkeypatch.setattr(pipeline, 'warm_up', lambda variant, budget, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        FrameWorker(None, lambda: Model(pipeline))
    assert pipeline.is_closed


def test_loading_can_be_given_up_and_the_model_is_closed_when_it_comes(settings):
    pipeline, gate, asked = FakePipeline(), threading.Event(), []

    def load():
        assert gate.wait(TIMEOUT_S)
        return Model(pipeline)

    def stop():
        asked.append(True)
        if len(asked) == 2:
            raise InterruptedError('stop')

    with pytest.raises(InterruptedError):
        FrameWorker(None, load, waiting=stop)
    assert not pipeline.is_closed
    gate.set()
    deadline = time.monotonic() + TIMEOUT_S
    while not pipeline.is_closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pipeline.is_closed and len(asked) == 2


def test_a_backend_that_hangs_is_given_up_and_never_publishes(settings):
    worker, camera = FrameWorker(None, lambda: Model(FakePipeline())), FakeCamera()
    worker.cameras, pipeline = [camera], worker.pipeline
    pipeline.gate.clear()
    camera.send(worker, 1)
    assert pipeline.started.wait(TIMEOUT_S)
    with pytest.raises(Stuck, match='not done after 0.1 s'):
        worker.finish(0.1)
    with pytest.raises(Stuck, match='cannot be closed'):
        worker.close(0.1)
    pipeline.gate.set()
    deadline = time.monotonic() + TIMEOUT_S
    while not pipeline.is_closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pipeline.is_closed and camera.published == []


def test_a_batch_is_complete_when_every_live_camera_has_a_frame(make_worker):
    worker = make_worker(cameras=3, at_once=3, wait_s=TIMEOUT_S)
    worker.cameras[2].is_live = False
    for second in (1, 2):
        for camera in worker.cameras[1::-1]:
            camera.send(worker, second)
        worker.finish(TIMEOUT_S / 2)
    assert worker.pipeline.batches == [2, 2]
    assert [camera.published for camera in worker.cameras] == [[1, 2], [1, 2], []]


def test_a_batch_waits_no_longer_than_it_may(make_worker):
    worker = make_worker(cameras=2, at_once=2, wait_s=0.05)
    worker.cameras[0].send(worker, 1)
    worker.finish(TIMEOUT_S)
    assert worker.pipeline.batches == [1] and worker.cameras[0].published == [1]


def test_a_batch_waits_no_more_for_cameras_that_have_stopped(make_worker):
    worker = make_worker(cameras=2, at_once=2, wait_s=60.0)
    worker.cameras[0].send(worker, 1)
    for camera in worker.cameras:
        camera.is_live = False
    worker.wake()
    worker.finish(TIMEOUT_S)
    assert worker.pipeline.batches == [1]


def test_a_batch_counts_once_for_the_budget_and_a_bad_frame_does_not_spoil_it(make_worker, monkeypatch):
    costs = []
    worker = make_worker(cameras=3, at_once=3, wait_s=TIMEOUT_S)
    monkeypatch.setattr(worker._keeper, 'observe', lambda cost, now_s: costs.append(cost))
    for error in (None, BadFrameError('too short')):
        worker.cameras[1].conversion_error = error
        for camera in worker.cameras:
            camera.send(worker, 1)
        worker.finish(TIMEOUT_S)
    assert worker.pipeline.batches == [3, 2]
    assert [camera.published for camera in worker.cameras] == [[1, 1], [1], [1, 1]]
    assert len(costs) == 2 and costs[0].streams == 3 and costs[0].total_ms > costs[0].work_ms > 0


def test_each_camera_s_bad_frames_are_logged(make_worker, lines):
    worker = make_worker(cameras=2)
    for camera in [*worker.cameras, worker.cameras[0]]:
        camera.conversion_error = BadFrameError('too short')
        camera.send(worker, 1)
        worker.finish()
    assert lines == ['bad frame on /camera0: too short', 'bad frame on /camera1: too short']
