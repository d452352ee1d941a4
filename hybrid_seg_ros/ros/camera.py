"""Camera: one image stream through the node, from its topic to its newest frame and its outputs."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hybrid_seg_ros.inference.film import Film
from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros.camera_topics import CameraTopic, camera_info_topic, image_topic, offered_types, other_topic
from hybrid_seg_ros.ros.health.camera_monitor import CameraMonitor
from hybrid_seg_ros.ros.health.diagnostics import CameraState, InputState
from hybrid_seg_ros.ros.image_decoding import compressed_to_rgb, decoder_complaints, image_to_rgb
from hybrid_seg_ros.ros.parameters import RELIABILITIES, NodeConfig
from hybrid_seg_ros.ros.publishers import Publishers
from hybrid_seg_ros.ros.qos import best_effort_qos, matching_qos, reliable_qos

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_LOG_PERIOD_S = 5.0
_COMPLAINT_PERIOD_S = 60.0
_LOOK_PERIOD_S = 0.2
"""How often the image's publishers are looked at. Humble tells nobody when one appears."""


@dataclass(frozen=True)
class Frame:
    """A message as it came, and when it came on the monotonic clock, in seconds."""

    message: Any
    received_s: float


class FrameSlot:
    """Room for the newest frame, between the callback and the worker; an older one that nobody took is dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame: Optional[Frame] = None
        self._is_open = False
        self.dropped = 0
        """Number of frames that a newer one replaced before they were taken."""

    def open(self) -> None:
        """Let frames in."""
        self._is_open = True

    def close(self) -> None:
        """Let no more frames in and forget the one that waits."""
        with self._lock:
            self._is_open = False
            self._frame = None

    def put(self, frame: Frame) -> bool:
        """Leave a frame, without waiting; return True if the slot was empty, so that the taker must be called."""
        with self._lock:
            if not self._is_open:
                return False
            was_empty = self._frame is None
            self.dropped += not was_empty
            self._frame = frame
            return was_empty

    def take(self) -> Optional[Frame]:
        """Take the newest frame; None if there is none."""
        with self._lock:
            frame, self._frame = self._frame, None
            return frame


class Camera:
    """Subscriptions while it is started, output topics, and what is known of the stream; the model is shared."""

    def __init__(
        self, node: LifecycleNode, config: NodeConfig, topic: CameraTopic, classes: LabelSpace,
        on_frame: Callable[['Camera'], Any],
    ) -> None:  # fmt: skip
        """`on_frame` is called with the camera when a frame waits and the one before was taken."""
        self._node, self._config, self._on_frame = node, config, on_frame
        self.name = topic.name
        self.monitor, self.film, self.slot = CameraMonitor(), Film(), FrameSlot()
        self.publishers = Publishers(node, classes, topic.output_prefix, self.monitor.subscriber_incompatible)
        self._is_compressed = config.image_transport == 'compressed'
        self.topic = image_topic(node, topic.image, config.image_transport)
        self._info_topic = camera_info_topic(node, topic.image)
        self._reliability = _reliability_override(node, self.topic) or config.image_reliability
        self._is_reliable = self._reliability == 'reliable'
        self.info: Optional[CameraInfo] = None
        """The camera's newest calibration."""
        self._subscription: Any = None
        self._info_subscription: Any = None
        self._timer: Any = None

    def start(self) -> None:
        """Subscribe, by default as the publishers allow: reliable where all offer that, else best effort."""
        self.monitor.restart(time.monotonic())
        self.slot.open()
        self._follow_publishers()
        self._info_subscription = self._node.create_subscription(
            CameraInfo, self._info_topic, self._info_callback, best_effort_qos(1)
        )
        if self._reliability == 'auto':
            clock = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
            self._timer = self._node.create_timer(_LOOK_PERIOD_S, self._follow_publishers, clock=clock)

    def stop(self) -> None:
        """Unsubscribe and forget the frame that waits. The one that was taken may still be at work."""
        self.slot.close()
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        for subscription in filter(None, (self._subscription, self._info_subscription)):
            self._node.destroy_subscription(subscription)
        self._timer = self._subscription = self._info_subscription = self.info = None

    def destroy(self) -> None:
        """Destroy the topics."""
        self.stop()
        self.publishers.destroy()

    @property
    def is_live(self) -> bool:
        """Whether it listens and an image came lately."""
        last_image_s = self.monitor.last_image_s
        is_fresh = last_image_s is not None and time.monotonic() - last_image_s <= self._config.image_timeout_s
        return self._subscription is not None and is_fresh

    def to_rgb(self, frame: Frame) -> np.ndarray:
        """Return the frame's picture as (H, W, 3) uint8 RGB. Raises BadFrameError."""
        if not self._is_compressed:
            return image_to_rgb(frame.message)
        with decoder_complaints(self._decoder_complained):
            return compressed_to_rgb(frame.message)

    def state(self, is_listening: bool) -> CameraState:
        """Return what diagnostics say of the stream. `is_listening`: the node is active and enabled."""
        types = offered_types(self._node, self.topic)
        message_type = f'sensor_msgs/msg/{"CompressedImage" if self._is_compressed else "Image"}'
        source = InputState(
            topic=self.topic,
            publishers=types.count(message_type),
            other_types=tuple(sorted(set(types) - {message_type})),
            dropped=self.slot.dropped,
            is_listening=is_listening,
            timeout_s=self._config.image_timeout_s,
            expected_fps=self._config.expected_fps,
            is_reliable=self._is_reliable,
            is_compressed=self._is_compressed,
            elsewhere='' if types else other_topic(self._node, self.topic),
            is_without_clock=self._node.get_clock().now().nanoseconds == 0,
        )
        health = dataclasses.replace(self.monitor.health(time.monotonic()), chosen_by=dict(self.film.counts))
        return CameraState(self.name, source, health)

    def _follow_publishers(self) -> None:
        """Subscribe to the image; anew where its publishers have come to offer another reliability."""
        if self._reliability == 'auto':
            qos = matching_qos(self._node, self.topic, 1)
        else:
            qos = reliable_qos(1) if self._is_reliable else best_effort_qos(1)
        is_reliable = qos.reliability == QoSReliabilityPolicy.RELIABLE
        if self._subscription is not None:
            if is_reliable == self._is_reliable:
                return
            self._node.destroy_subscription(self._subscription)
        self._is_reliable = is_reliable
        self._subscription = self._node.create_subscription(
            CompressedImage if self._is_compressed else Image,
            self.topic,
            self._image_callback,
            qos,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._incompatible_qos_callback),
            qos_overriding_options=QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)),
        )

    def _image_callback(self, message: Any) -> None:
        now_s = time.monotonic()
        stamp = message.header.stamp
        now_ns = self._node.get_clock().now().nanoseconds  # 0: simulated time that has not begun
        age_ns = now_ns - (stamp.sec * 1_000_000_000 + stamp.nanosec)
        self.monitor.image_received(now_s, age_ns / 1e9 if now_ns else None, len(message.data))
        if self.slot.put(Frame(message, now_s)):
            self._on_frame(self)

    def _info_callback(self, message: CameraInfo) -> None:
        self.monitor.info_received(time.monotonic())
        self.info = message

    def _decoder_complained(self, complaint: str) -> None:
        self.monitor.decoder_complained()
        self._node.get_logger().warning(
            f'{self.topic}: {complaint}; segmented all the same', throttle_duration_sec=_COMPLAINT_PERIOD_S
        )

    def _incompatible_qos_callback(self, event: Any) -> None:
        if self._reliability == 'auto':  # until the publishers are looked at next
            return
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        here = f', or here by image_reliability or qos_overrides.{self.topic}.subscription.reliability'
        problem = (
            f'a publisher of {self.topic} offers an incompatible QoS ({policy}) and is not received; change it there'
            f'{here if policy == "RELIABILITY" else ""}'
        )
        self.monitor.qos_incompatible(problem)
        self._node.get_logger().error(problem, throttle_duration_sec=_LOG_PERIOD_S)


def check_topics(cameras: Sequence[Camera]) -> None:
    """Raise ValueError if two cameras listen to one topic, which only shows when names are resolved and remapped."""
    topics = [camera.topic for camera in cameras]
    for topic in topics:
        if topics.count(topic) > 1:
            names = ', '.join(camera.name for camera in cameras if camera.topic == topic)
            raise ValueError(f'cameras: expected a topic of its own for each, got {topic} for {names}')


def _reliability_override(node: Node, topic: str) -> str:
    """Return what `qos_overrides` ask of the topic, '' for nothing. rclpy's own would fix the first choice for ever."""
    name = f'qos_overrides.{topic}.subscription.reliability'
    if not node.has_parameter(name):
        node.declare_parameter(name, '', ParameterDescriptor(read_only=True, description='Empty: image_reliability.'))
    value = node.get_parameter(name).value
    if value not in ('', *RELIABILITIES):
        raise ValueError(f'{name}: unknown value {value!r}; legal are {", ".join(RELIABILITIES)}')
    return value
