"""Camera: what belongs to one image stream through the node; the model is shared."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.lifecycle import LifecycleNode

from hybrid_seg_ros.inference.film import Film
from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros.camera_monitor import CameraHealth, CameraMonitor
from hybrid_seg_ros.ros.camera_topics import CameraTopic
from hybrid_seg_ros.ros.diagnostics import InputState
from hybrid_seg_ros.ros.image_input import ImageInput
from hybrid_seg_ros.ros.parameters import NodeConfig
from hybrid_seg_ros.ros.publishers import Publishers


class Camera:
    """Input, output topics and health of one image stream."""

    def __init__(
        self, node: LifecycleNode, config: NodeConfig, topic: CameraTopic, classes: LabelSpace,
        on_frame: Callable[['Camera'], Any],
    ) -> None:  # fmt: skip
        self._node, self._config = node, config
        self.name = topic.name
        self.monitor = CameraMonitor()
        self.film = Film()
        self.publishers = Publishers(node, classes, topic.output_prefix, self._subscriber_incompatible)
        self.input = ImageInput(node, config, topic.image, self.monitor, lambda: on_frame(self))

    def _subscriber_incompatible(self, problem: str) -> None:
        self.monitor.subscriber_incompatible(problem, time.monotonic())

    def destroy(self) -> None:
        """Destroy the topics."""
        self.input.stop()
        self.publishers.destroy()

    @property
    def is_live(self) -> bool:
        """Whether it listens and an image came lately."""
        if not self.input.is_started:
            return False
        since_s = self.monitor.seconds_since_image(time.monotonic())
        return since_s is not None and since_s <= self._config.image_timeout_s

    def health(self) -> CameraHealth:
        """Return how the stream fares."""
        return dataclasses.replace(self.monitor.health(time.monotonic()), chosen_by=dict(self.film.counts))

    def input_state(self, is_listening: bool) -> InputState:
        """Return what diagnostics say of the input topic."""
        topic, message_type = self.input.topic, self.input.message_type
        offered = self._offered(topic)
        return InputState(
            topic=topic,
            publishers=offered.count(message_type),
            other_types=tuple(sorted(set(offered) - {message_type})),
            dropped=self.input.dropped,
            is_listening=is_listening,
            timeout_s=self._config.image_timeout_s,
            expected_fps=self._config.expected_fps,
            is_reliable=self.input.is_reliable,
            is_compressed=self.input.is_compressed,
            elsewhere='' if offered else self._elsewhere(topic),
            is_without_clock=self._node.get_clock().now().nanoseconds == 0,
        )

    def _offered(self, topic: str) -> list[str]:
        return [info.topic_type for info in self._node.get_publishers_info_by_topic(topic)]

    def _elsewhere(self, topic: str) -> str:
        """Return a topic of the other transport that somebody publishes; '' if nobody does."""
        plain = topic.removesuffix('/compressed')
        for other in (f'{topic}/compressed', plain, plain.removesuffix('/compressed')):
            if other != topic and self._offered(other):
                return other
        return ''


def check_inputs(cameras: Sequence[Camera]) -> None:
    """Raise ValueError if two cameras listen to one topic, which only shows when names are resolved and remapped."""
    topics = [camera.input.topic for camera in cameras]
    for camera in cameras:
        if topics.count(camera.input.topic) > 1:
            names = ', '.join(each.name for each in cameras if each.input.topic == camera.input.topic)
            raise ValueError(f'cameras: expected a topic of its own for each, got {camera.input.topic} for {names}')
