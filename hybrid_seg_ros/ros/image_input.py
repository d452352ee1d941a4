"""ImageInput: the subscriptions of one camera, and the slot that holds its newest frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Optional

import numpy as np
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hybrid_seg_ros.ros.camera_monitor import CameraMonitor
from hybrid_seg_ros.ros.camera_topics import remapped
from hybrid_seg_ros.ros.compressed_decoding import compressed_to_rgb, decoder_complaints
from hybrid_seg_ros.ros.frame_slot import Frame, FrameSlot
from hybrid_seg_ros.ros.image_decoding import image_to_rgb
from hybrid_seg_ros.ros.parameters import RELIABILITIES, NodeConfig
from hybrid_seg_ros.ros.qos import best_effort_qos, matching_qos, reliable_qos

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_LOG_PERIOD_S = 5.0
_COMPLAINT_PERIOD_S = 60.0
_LOOK_PERIOD_S = 0.2
"""How often the image's publishers are looked at. Humble tells nobody when one appears."""


class ImageInput:
    """Receives images while it is started; `on_frame` is called when a frame waits and the one before was taken."""

    def __init__(
        self, node: Node, config: NodeConfig, image: str, monitor: CameraMonitor, on_frame: Callable[[], Any]
    ) -> None:
        """`image` is the topic's name before remapping."""
        self._node, self._monitor, self._on_frame = node, monitor, on_frame
        self._slot = FrameSlot()
        self.is_compressed = config.image_transport == 'compressed'
        self.topic = image_topic(node, image, config.image_transport)
        self.message_type = f'sensor_msgs/msg/{"CompressedImage" if self.is_compressed else "Image"}'
        self._info_topic = camera_info_topic(node, image)
        self._reliability = _reliability_override(node, self.topic) or config.image_reliability
        self.is_reliable = self._reliability == 'reliable'
        self._info: Optional[CameraInfo] = None
        self._subscription: Any = None
        self._info_subscription: Any = None
        self._timer: Any = None

    def start(self) -> None:
        """Subscribe, by default as the publishers allow: reliable where all offer that, else best effort."""
        self._monitor.restart(time.monotonic())
        self._slot.open()
        self._follow_publishers()
        self._info_subscription = self._node.create_subscription(
            CameraInfo, self._info_topic, self._info_callback, best_effort_qos(1)
        )
        if self._reliability == 'auto':
            clock = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
            self._timer = self._node.create_timer(_LOOK_PERIOD_S, self._follow_publishers, clock=clock)

    def stop(self) -> None:
        """Unsubscribe and forget the frame that waits. The one that was taken may still be at work."""
        self._slot.close()
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        for subscription in filter(None, (self._subscription, self._info_subscription)):
            self._node.destroy_subscription(subscription)
        self._timer = self._subscription = self._info_subscription = None
        self._info = None

    @property
    def is_started(self) -> bool:
        """Whether it is subscribed."""
        return self._subscription is not None

    def take(self) -> Optional[Frame]:
        """Take the newest frame, None if there is none."""
        return self._slot.take()

    def to_rgb(self, frame: Frame) -> np.ndarray:
        """Return the frame's picture as (H, W, 3) uint8 RGB. Raises BadFrameError."""
        if not self.is_compressed:
            return image_to_rgb(frame.message)
        with decoder_complaints(self._decoder_complained):
            return compressed_to_rgb(frame.message)

    @property
    def camera_info(self) -> Optional[CameraInfo]:
        """The camera's newest calibration; None if none has come."""
        return self._info

    @property
    def dropped(self) -> int:
        """Number of frames that a newer one replaced before they were taken."""
        return self._slot.dropped

    def _follow_publishers(self) -> None:
        """Subscribe to the image; anew where its publishers have come to offer another reliability."""
        if self._reliability == 'auto':
            qos = matching_qos(self._node, self.topic, 1)
        else:
            qos = reliable_qos(1) if self.is_reliable else best_effort_qos(1)
        is_reliable = qos.reliability == QoSReliabilityPolicy.RELIABLE
        if self._subscription is not None:
            if is_reliable == self.is_reliable:
                return
            self._node.destroy_subscription(self._subscription)
        self.is_reliable = is_reliable
        self._subscription = self._node.create_subscription(
            CompressedImage if self.is_compressed else Image,
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
        self._monitor.image_received(now_s, age_ns / 1e9 if now_ns else None, len(message.data))
        if self._slot.put(Frame(message, now_s)):
            self._on_frame()

    def _info_callback(self, message: CameraInfo) -> None:
        self._monitor.info_received(time.monotonic())
        self._info = message

    def _decoder_complained(self, complaint: str) -> None:
        self._monitor.decoder_complained()
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
        self._monitor.qos_incompatible(problem)
        self._node.get_logger().error(problem, throttle_duration_sec=_LOG_PERIOD_S)


def image_topic(node: Node, image: str, transport: str) -> str:
    """Return the topic to listen to: `image` as it is remapped, and `/compressed` below it for that transport.

    Remapping `image` alone is enough for both, as with image_transport.
    """
    topic = node.resolve_topic_name(image)
    return f'{topic}/compressed' if transport == 'compressed' else topic


def camera_info_topic(node: Node, image: str) -> str:
    """Return the calibration's topic: the `camera_info` beside `image` if that is remapped, else beside its topic."""
    beside = image.rsplit('/', 1)[0] + '/camera_info' if '/' in image else 'camera_info'
    return remapped(node, beside) or node.resolve_topic_name(image).rsplit('/', 1)[0] + '/camera_info'


def _reliability_override(node: Node, topic: str) -> str:
    """Return what `qos_overrides` ask of the topic, '' for nothing. rclpy's own would fix the first choice for ever."""
    name = f'qos_overrides.{topic}.subscription.reliability'
    if not node.has_parameter(name):
        node.declare_parameter(name, '', ParameterDescriptor(read_only=True, description='Empty: image_reliability.'))
    value = node.get_parameter(name).value
    if value not in ('', *RELIABILITIES):
        raise ValueError(f'{name}: unknown value {value!r}; legal are {", ".join(RELIABILITIES)}')
    return value
