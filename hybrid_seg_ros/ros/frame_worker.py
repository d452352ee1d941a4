"""FrameWorker: the one thread that uses the model; convert, segment, publish, a frame at a time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

from rclpy.node import Node

from hybrid_seg_ros.inference import SegmentationPipeline
from hybrid_seg_ros.ros.camera import Camera
from hybrid_seg_ros.ros.frame_slot import Frame
from hybrid_seg_ros.ros.live_settings import LiveSettings
from hybrid_seg_ros.ros.messages import BadFrameError
from hybrid_seg_ros.ros.parameters import read_live_settings

_LOG_PERIOD_S = 5.0


class FrameWorker:
    """Loads the model on its thread, where it is also used: libraries keep buffers and thread pools per thread.

    A camera asks for its turn only when its slot was empty, so at most one turn per camera waits, first come first
    served: cameras are served in turn, and what is segmented is each one's newest frame.
    """

    def __init__(self, node: Node, load: Callable[[], SegmentationPipeline]) -> None:
        """Load the model; raises what `load` raises."""
        self._node = node
        self._settings: Optional[LiveSettings] = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix='segmentation')
        try:
            self.pipeline = self._thread.submit(self._load, load).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def request(self, camera: Camera) -> None:
        """Segment the camera's newest frame when it is its turn. Does not wait."""
        self._thread.submit(self._segment_newest, camera)

    def finish(self) -> None:
        """Wait until the frame at work, and every turn asked for before, is done."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Finish, free the device, end the thread."""
        try:
            self._thread.submit(self.pipeline.close).result()
        finally:
            self._thread.shutdown()

    def _load(self, load: Callable[[], SegmentationPipeline]) -> SegmentationPipeline:
        self.pipeline = load()
        try:
            self._apply(read_live_settings(self._node))
            self.pipeline.warm_up()
        except BaseException:
            self.pipeline.close()
            raise
        return self.pipeline

    def _apply(self, settings: LiveSettings) -> None:
        if settings != self._settings:
            self.pipeline.set_operating_point(*settings.operating_point(self.pipeline.spec))
            self._settings = settings

    def _segment_newest(self, camera: Camera) -> None:
        frame = camera.input.take()
        settings = read_live_settings(self._node)
        if frame is None or not settings.enabled:
            return
        try:
            self._apply(settings)
            self._segment(camera, frame, settings)
        except BadFrameError as error:
            camera.monitor.bad_frame(str(error), time.monotonic())
            self._node.get_logger().warning(
                f'bad frame on {camera.input.topic}: {error}', throttle_duration_sec=_LOG_PERIOD_S
            )
        except Exception as error:  # whatever a backend raises: the next frame may well succeed
            camera.monitor.inference_failed(f'{type(error).__name__}: {error}')
            self._node.get_logger().error(
                f'segmentation failed: {traceback.format_exc()}', throttle_duration_sec=_LOG_PERIOD_S
            )

    def _segment(self, camera: Camera, frame: Frame, settings: LiveSettings) -> None:
        start_s = time.monotonic()
        image = camera.input.to_rgb(frame)
        convert_ms = (time.monotonic() - start_s) * 1e3
        result = self.pipeline(image)
        header = frame.message.header
        camera.publishers.publish_result(header, image.shape[:2], result, camera.input.camera_info)
        now_s = time.monotonic()
        latency_ms = {
            'convert': convert_ms,
            'preprocess': result.timings.preprocess_ms,
            'inference': result.timings.inference_ms,
            'postprocess': result.timings.postprocess_ms,
            'total': (now_s - frame.received_s) * 1e3,
        }
        camera.publishers.publish_fps(camera.monitor.image_segmented(latency_ms, result.tokens, now_s))
        camera.publishers.publish_pictures(
            header, image, result, settings.overlay_alpha, settings.overlay_legend
        )
