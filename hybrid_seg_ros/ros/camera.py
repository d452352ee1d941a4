"""Camera: what belongs to one image stream through the node; the model is shared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros.camera_monitor import CameraHealth, CameraMonitor
from hybrid_seg_ros.ros.diagnostics import InputState
from hybrid_seg_ros.ros.image_input import ImageInput
from hybrid_seg_ros.ros.parameters import NodeConfig
from hybrid_seg_ros.ros.publishers import Publishers


class Camera:
    """Input, output topics and health of one image stream."""

    def __init__(
        self, node: LifecycleNode, config: NodeConfig, classes: LabelSpace, on_frame: Callable[['Camera'], Any]
    ) -> None:
        self._node, self._timeout_s = node, config.image_timeout_s
        self.monitor = CameraMonitor()
        self.publishers = Publishers(node, classes)
        self.input = ImageInput(node, config.image_transport, self.monitor, lambda: on_frame(self))

    def destroy(self) -> None:
        """Destroy the topics."""
        self.input.stop()
        self.publishers.destroy()

    def health(self) -> CameraHealth:
        """Return how the stream fares."""
        return self.monitor.health(time.monotonic())

    def input_state(self, is_listening: bool) -> InputState:
        """Return what diagnostics say of the input topic."""
        topic, message_type = self.input.topic, self.input.message_type
        offered = [info.topic_type for info in self._node.get_publishers_info_by_topic(topic)]
        return InputState(
            topic=topic,
            publishers=offered.count(message_type),
            other_types=tuple(sorted(set(offered) - {message_type})),
            dropped=self.input.dropped,
            is_listening=is_listening,
            timeout_s=self._timeout_s,
        )
