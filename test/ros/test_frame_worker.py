"""The worker thread, with a model and a camera that do as the test says."""

import threading
import types

import numpy as np
import pytest
from sensor_msgs.msg import Image

from hybrid_seg_ros.ros import frame_worker
from hybrid_seg_ros.ros.camera_monitor import CameraMonitor
from hybrid_seg_ros.ros.frame_slot import Frame, FrameSlot
from hybrid_seg_ros.ros.frame_worker import FrameWorker
from hybrid_seg_ros.ros.live_settings import LiveSettings
from hybrid_seg_ros.ros.messages import BadFrameError
from hybrid_seg_ros.segmentation import Segmentation, StageTimings, TokenReport

ONES = np.ones((2, 3), np.uint8)
RESULT = Segmentation(ONES, np.ones((2, 3), np.float32), TokenReport((2, 3), ONES, 0 * ONES, 6), StageTimings(1, 2, 3))
TIMEOUT_S = 5.0


class FakePipeline:
    """Counts its calls; raises the error that it is given."""

    def __init__(self):
        self.spec = None
        self.threads, self.points, self.error, self.is_closed = [], [], None, False
        self.started, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, image):
        self.threads.append(threading.current_thread().name)
        self.started.set()
        assert self.gate.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        return RESULT

    def set_operating_point(self, variant, budget):
        self.points.append((variant, budget))

    def warm_up(self):
        self.threads.append(threading.current_thread().name)

    def close(self):
        self.is_closed = True


class FakeCamera:
    """A camera whose published stamps are kept."""

    def __init__(self):
        self.monitor, self.published = CameraMonitor(), []
        self.slot = FrameSlot()
        self.slot.open()
        self.conversion_error = None
        self.input = types.SimpleNamespace(
            take=self.slot.take, to_rgb=self.to_rgb, camera_info=None, topic='/image'
        )
        self.publishers = types.SimpleNamespace(
            publish_result=lambda header, image_hw, result, info: self.published.append(header.stamp.sec),
            publish_fps=lambda rate_hz: None,
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


@pytest.fixture
def settings(monkeypatch):
    """Make live settings that the test may change."""
    monkeypatch.setattr(LiveSettings, 'operating_point', lambda self, spec: (self.variant, None))
    current = types.SimpleNamespace(value=LiveSettings('', -1.0, 0.0, 0.5, False, True))
    monkeypatch.setattr(frame_worker, 'read_live_settings', lambda node: current.value)
    return current


@pytest.fixture
def lines():
    return []


@pytest.fixture
def worker(settings, lines):
    def log(text, throttle_duration_sec):
        lines.append(text)

    logger = types.SimpleNamespace(warning=log, error=log)
    worker = FrameWorker(types.SimpleNamespace(get_logger=lambda: logger), FakePipeline)
    yield worker
    worker.close()
    assert worker.pipeline.is_closed


def test_the_model_is_warmed_up_and_used_on_one_thread(worker):
    camera = FakeCamera()
    for second in (1, 2):
        camera.send(worker, second)
        worker.finish()
    assert camera.published == [1, 2]
    assert len(worker.pipeline.threads) == 3 and set(worker.pipeline.threads) == {'segmentation_0'}


def test_the_newest_frame_wins_and_finish_waits_for_it(worker):
    camera = FakeCamera()
    worker.pipeline.gate.clear()
    camera.send(worker, 1)
    assert worker.pipeline.started.wait(TIMEOUT_S)
    for second in (2, 3, 4):
        camera.send(worker, second)
    worker.pipeline.gate.set()
    worker.finish()
    assert camera.published == [1, 4] and camera.slot.dropped == 2


def test_cameras_are_served_in_turn(worker):
    served = []
    cameras = [FakeCamera(), FakeCamera()]
    for index, camera in enumerate(cameras):
        camera.publishers.publish_fps = lambda rate_hz, index=index: served.append(index)
    worker.pipeline.gate.clear()
    for second in range(5):
        for camera in cameras:
            camera.send(worker, second)
    worker.pipeline.gate.set()
    worker.finish()
    assert served[:3] in ([0, 1, 0], [0, 1]) and set(served) == {0, 1}


def test_a_failing_backend_is_reported_and_the_next_frame_segmented(worker, lines):
    camera = FakeCamera()
    worker.pipeline.error = RuntimeError('out of memory')
    camera.send(worker, 1)
    worker.finish()
    assert camera.monitor.health(0.0).failure == 'RuntimeError: out of memory'
    assert 'Traceback' in lines[-1] and camera.published == []
    worker.pipeline.error = None
    camera.send(worker, 2)
    worker.finish()
    assert camera.published == [2] and camera.monitor.health(0.0).failure == ''


def test_a_bad_frame_is_not_a_failure(worker, lines):
    camera = FakeCamera()
    camera.conversion_error = BadFrameError('too short')
    camera.send(worker, 1)
    worker.finish()
    health = camera.monitor.health(0.0)
    assert (health.bad_frames, health.failures, lines) == (1, 0, ['bad frame on /image: too short'])


def test_live_settings_reach_the_model_before_the_next_frame_and_only_when_they_change(worker, settings):
    camera = FakeCamera()
    for second, variant in enumerate(['', 'cts', 'cts']):
        settings.value = LiveSettings(variant, -1.0, 0.0, 0.5, False, True)
        camera.send(worker, second)
        worker.finish()
    assert worker.pipeline.points == [('', None), ('cts', None)]


def test_disabled_frames_are_left_alone(worker, settings):
    camera = FakeCamera()
    settings.value = LiveSettings('', -1.0, 0.0, 0.5, False, False)
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
    monkeypatch.setattr(pipeline, 'warm_up', lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        FrameWorker(None, lambda: pipeline)
    assert pipeline.is_closed
