"""FrameWorker: the one thread that uses the model. It says whose turn it is, and converts, segments, publishes."""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning  # another class than the built-in one up to Python 3.10
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from rclpy.node import Node

from hybrid_seg_ros.inference import SegmentationPipeline
from hybrid_seg_ros.inference.latency_budget import FrameCost
from hybrid_seg_ros.inference.point_keeper import PointKeeper, PointState
from hybrid_seg_ros.inference.work_thread import WorkThread
from hybrid_seg_ros.model_spec import ModelSpecError
from hybrid_seg_ros.process_memory import free_unused_memory, is_out_of_memory
from hybrid_seg_ros.ros.camera import Camera, Frame
from hybrid_seg_ros.ros.image_decoding import BadFrameError
from hybrid_seg_ros.ros.model_loading import Model
from hybrid_seg_ros.ros.node_parameters import read_live_settings
from hybrid_seg_ros.ros.parameters import LiveSettings
from hybrid_seg_ros.segmentation import Segmentation

_LOG_PERIOD_S = 5.0
_WAIT_S = 0.5

STUCK_S = 10.0
"""How long a frame may take before the backend is taken to hang."""


class Stuck(RuntimeError):
    """The worker has not come back in time: the backend hangs, or builds something that takes minutes."""


class FrameWorker:
    """Loads the model on its thread, where it is also used: libraries keep buffers and thread pools per thread.

    `cameras` are those that it serves. One asks for its turn only when its slot was empty, so at most one turn of each
    waits: a fast camera cannot crowd out the others, and what is segmented is each one's newest frame.
    """

    def __init__(
        self, node: Node, load: Callable[[], Model], at_once: int = 1, wait_s: float = 0.0,
        waiting: Callable[[], None] = lambda: None, on_failure: Callable[[int], None] = lambda in_a_row: None,
    ) -> None:  # fmt: skip
        """Load the model; raises what `load` raises. `waiting` is called meanwhile, and may raise to give up.

        `at_once` images at most are segmented together; the first one waits for those of the other cameras at most
        `wait_s` seconds. `on_failure` is told how many images in a row could not be segmented.
        """
        self._node, self._at_once, self._wait_s, self._on_failure = node, at_once, wait_s, on_failure
        self.cameras: Sequence[Camera] = ()
        self._changed = threading.Condition()
        self._asking: list[Camera] = []  # for their turn, in this order
        self._is_abandoned = threading.Event()
        self._failures_in_a_row = 0
        self._logged = ('', 0.0)
        self._bad_logged_s: dict[str, float] = {}
        self._began_s: Optional[float] = None
        self._following: Optional[Future] = None
        self._thread = WorkThread('segmentation')
        loaded = self._thread.submit(lambda: self._load(load))
        try:
            _wait(loaded, waiting)
        except BaseException:
            self._is_abandoned.set()
            self._thread.close(timeout_s=0.0 if not loaded.done() else None)
            raise

    @property
    def pipeline(self) -> SegmentationPipeline:
        """The model at work."""
        return self._model.pipeline

    @property
    def point(self) -> PointState:
        """The operating point that runs, and why."""
        return self._keeper.state

    def request(self, camera: Camera) -> None:
        """Note that the camera's slot, which was empty, has a frame. Does not wait."""
        with self._changed:
            self._asking.append(camera)
            self._changed.notify()
        self._thread.submit(self._serve_next)

    def wake(self) -> None:
        """Wait no more for cameras that have stopped."""
        with self._changed:
            self._changed.notify()

    def seconds_at_work(self, now_s: float) -> float:
        """Return how long the image at work, if there is one, has been that; a backend that hangs never returns."""
        began_s = self._began_s
        return 0.0 if began_s is None else now_s - began_s

    def follow(self) -> None:
        """Let the model do as the live parameters say, also while no images come. Does not wait."""
        if self._following is None or self._following.done():
            error = None if self._following is None else self._following.exception()
            if error is not None:
                self._node.get_logger().error(f'live parameters: {error}', throttle_duration_sec=_LOG_PERIOD_S)
            self._following = self._thread.submit(
                lambda: self._follow(read_live_settings(self._node), time.monotonic())
            )

    def problem(self, changes: Mapping[str, Any]) -> str:
        """Return what the model has against new values of live parameters, '' for nothing."""
        pipeline = self.pipeline
        try:
            settings = dataclasses.replace(read_live_settings(self._node), **changes)
            wanted = settings.wanted(pipeline.spec)
            if not wanted.target:
                pipeline.check_operating_point(wanted.variant, wanted.budget)
            elif not self._model.points:
                return f'a target of {wanted.target} needs operating points: {self._model.points_problem}'
        except ValueError as error:
            return str(error)
        return ''

    def finish(self, timeout_s: Optional[float] = None) -> None:
        """Wait until the frames at work, and every turn asked for before, are done. Raises Stuck."""
        try:
            self._thread.submit(lambda: None).result(timeout_s)
        except StillRunning:
            raise Stuck(f'the frame at work is not done after {timeout_s:g} s: the backend hangs') from None

    def close(self, timeout_s: Optional[float] = None) -> bool:
        """Finish, free the device, end the threads; return false where an operating point is still being prepared.

        Raises Stuck; nothing is published any more then, either.
        """
        closing = self._thread.submit(self._close)
        try:
            return closing.result(timeout_s)
        except StillRunning:
            self._is_abandoned.set()
            raise Stuck('the model cannot be closed: the backend hangs') from None
        finally:
            self._thread.close(timeout_s=0.0 if self._is_abandoned.is_set() else None)

    def _load(self, load: Callable[[], Model]) -> None:
        self._model = load()
        try:
            pipeline = self._model.pipeline
            self._settings = read_live_settings(self._node)
            self._wanted = self._settings.wanted(pipeline.spec)
            self._keeper = PointKeeper(pipeline, self._model.points, self._at_once)
            if self._wanted.target and not self._model.points:
                raise ModelSpecError(self.problem({}))
            self._keeper.start(self._wanted, streams=self._at_once, now_s=time.monotonic())
        except BaseException:
            self._model.pipeline.close()
            raise
        if self._is_abandoned.is_set():
            self._close()

    def _close(self) -> bool:
        self._model.pipeline.close()
        return self._keeper.close(timeout_s=0.1)

    def _serve_next(self) -> None:
        """Segment the newest frame of the camera whose turn it is, or of all that a batch has room for."""
        with self._changed:
            if self._at_once > 1 and self._asking:
                self._changed.wait_for(self._is_complete, self._wait_s)
            cameras, self._asking = self._asking[: self._at_once], self._asking[self._at_once :]
        start_s = time.monotonic()
        taken = [(camera, camera.slot.take()) for camera in sorted(cameras, key=self.cameras.index)]
        frames = [(camera, frame) for camera, frame in taken if frame is not None]
        settings = read_live_settings(self._node)
        if not frames or not settings.enabled or self._is_abandoned.is_set():
            return
        self._began_s = start_s
        unanswered = [camera for camera, _ in frames]
        try:
            streams = self._follow(settings, start_s)
            jobs = [job for job in (self._convert(camera, frame) for camera, frame in frames) if job is not None]
            unanswered = [job.camera for job in jobs]
            if jobs:
                self._segment(jobs, settings, streams, start_s, unanswered)
        except Exception as error:  # whatever a backend raises: the next frame may well succeed
            self._failed(unanswered, error)
        finally:
            self._began_s = None

    def _is_complete(self) -> bool:
        """Whether a batch has a frame of every camera that is live: one that is silent holds nobody up."""
        return all(camera in self._asking for camera in self.cameras if camera.is_live)

    def _follow(self, settings: LiveSettings, now_s: float) -> int:
        """Let the model do as the live parameters say, from this frame on where that needs no preparation.

        Return the number of cameras that send images: they share the model, and with it a latency budget.
        """
        if settings != self._settings:
            self._wanted = settings.wanted(self._model.pipeline.spec)
            self._settings = settings
        streams = sum(camera.is_live for camera in self.cameras)
        self._keeper.follow(self._wanted, streams, now_s)
        return streams

    def _convert(self, camera: Camera, frame: Frame) -> Optional[_Job]:
        start_s = time.monotonic()
        try:
            image = camera.to_rgb(frame)
        except BadFrameError as error:
            now_s, topic = time.monotonic(), camera.topic
            camera.monitor.bad_frame(str(error), now_s)
            if now_s - self._bad_logged_s.get(topic, -_LOG_PERIOD_S) >= _LOG_PERIOD_S:  # for each camera
                self._bad_logged_s[topic] = now_s
                self._node.get_logger().warning(f'bad frame on {topic}: {error}')
            return None
        return _Job(camera, frame, image, (time.monotonic() - start_s) * 1e3)

    def _segment(
        self, jobs: Sequence[_Job], settings: LiveSettings, streams: int, start_s: float, unanswered: list[Camera]
    ) -> None:  # fmt: skip
        """Segment and publish; takes out of `unanswered` each camera that has all of its answer."""
        pipeline, films = self._model.pipeline, [job.camera.film for job in jobs]
        pipeline.with_confidence = any(job.camera.publishers.needs_confidence for job in jobs)
        for film in films:
            film.merge_by, film.look_every = settings.merge_by, settings.look_every
        stamps_s = [stamp.sec + stamp.nanosec * 1e-9 for stamp in (job.frame.message.header.stamp for job in jobs)]
        results = pipeline.segment_batch([job.image for job in jobs], films, stamps_s)
        if self._is_abandoned.is_set():  # the node has given this worker up while the backend hung
            return
        latencies_ms = [self._publish(job, result) for job, result in zip(jobs, results)]
        masks_s = time.monotonic()
        for job, result in zip(jobs, results):
            job.camera.publishers.publish_pictures(job.frame.message.header, job.image, result, settings)
            unanswered.remove(job.camera)
        self._failures_in_a_row = 0
        now_s = time.monotonic()
        cost = FrameCost(  # one for a batch: it is late, or not, as a whole
            max(latencies_ms), (masks_s - start_s) * 1e3 / len(jobs), results[0].timings.inference_ms, streams,
            jobs[0].camera.monitor.period_ms(now_s), (now_s - masks_s) * 1e3 / len(jobs),
        )  # fmt: skip
        self._keeper.observe(cost, now_s)

    def _publish(self, job: _Job, result: Segmentation) -> float:
        """Publish what every frame has; return its latency in milliseconds."""
        camera, header = job.camera, job.frame.message.header
        camera.publishers.publish_mask(header, result)
        now_s = time.monotonic()
        latency_ms = {
            'convert': job.convert_ms,
            'preprocess': result.timings.preprocess_ms,
            'inference': result.timings.inference_ms,
            'postprocess': result.timings.postprocess_ms,
            'total': (now_s - job.frame.received_s) * 1e3,
        }
        fps = camera.monitor.image_segmented(latency_ms, result.tokens, now_s)
        camera.publishers.publish_companions(header, job.image.shape[:2], result, camera.info, fps)
        return latency_ms['total']

    def _failed(self, cameras: Sequence[Camera], error: Exception) -> None:
        problem = f'{type(error).__name__}: {error}'
        if is_out_of_memory(error):
            free_unused_memory()
            problem = f'out of memory: {problem}'
        for camera in cameras:
            camera.monitor.inference_failed(problem)
        now_s = time.monotonic()
        if problem != self._logged[0] or now_s - self._logged[1] > _LOG_PERIOD_S:  # another one is told at once
            self._logged = (problem, now_s)
            self._node.get_logger().error(f'segmentation failed: {problem}\n{traceback.format_exc().rstrip()}')
        self._failures_in_a_row += len(cameras)
        self._on_failure(self._failures_in_a_row)


@dataclass(frozen=True)
class _Job:
    """A frame whose picture has been read."""

    camera: Camera
    frame: Frame
    image: np.ndarray
    convert_ms: float


def _wait(future: Future, waiting: Callable[[], None]) -> Any:
    """Return the future's result; call `waiting` every half second until it is there."""
    while True:
        try:
            return future.result(timeout=_WAIT_S)
        except StillRunning:
            if future.done():
                raise
            waiting()
