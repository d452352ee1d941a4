"""Publishers: what the node publishes of one camera, and when: pictures only for subscribers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32, Header, Int32MultiArray

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros import messages
from hybrid_seg_ros.ros.camera_topics import remapped
from hybrid_seg_ros.ros.parameters import LiveSettings
from hybrid_seg_ros.segmentation import Segmentation
from hybrid_seg_ros.visualization import add_class_legend, draw_overlay, draw_token_map

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

# Reliable matches any subscriber (REP-2003); keep last, so that a slow one loses old masks and holds nobody up.
_DEPTH = 5
_LOG_PERIOD_S = 5.0


class Publishers:
    """The output topics of one camera, below `prefix` ('~' is the node's own name)."""

    def __init__(
        self, node: LifecycleNode, classes: LabelSpace, prefix: str = '~',
        on_incompatible: Callable[[str], Any] = lambda problem: None,
    ) -> None:  # fmt: skip
        """`on_incompatible` is told of subscribers whose QoS fits none of the publishers."""
        self._node, self._classes = node, classes
        self._on_incompatible = on_incompatible
        self._all: list[LifecyclePublisher] = []
        png = f'{prefix}/mask/compressed'
        png = remapped(node, png) or f'{node.resolve_topic_name(f"{prefix}/mask")}/compressed'
        self._mask = self._create(Image, f'{prefix}/mask', overridable=True)
        self._mask_png = self._create(CompressedImage, png, overridable=True)
        self._confidence = self._create(Image, f'{prefix}/confidence', overridable=True)
        self._color_mask = self._create(Image, f'{prefix}/color_mask', overridable=True)
        self._overlay = self._create(Image, f'{prefix}/overlay', overridable=True)
        self._token_map = self._create(Image, f'{prefix}/token_map', overridable=True)
        self._token_usage = self._create(Int32MultiArray, f'{prefix}/token_usage')
        self._fps = self._create(Float32, f'{prefix}/fps')
        self._camera_info = self._create(CameraInfo, f'{prefix}/camera_info')
        self._label_info: Optional[LifecyclePublisher] = None
        if messages.LabelInfo is not None:
            self._label_info = self._create(
                messages.LabelInfo, f'{prefix}/label_info', depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
            )

    def publish_label_info(self) -> None:
        """Publish what the class ids mean, for present and future subscribers, if vision_msgs is installed."""
        if self._label_info is not None:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self._label_info.publish(messages.label_info_message(self._classes, header))

    @property
    def needs_confidence(self) -> bool:
        """Whether somebody subscribes to it."""
        return _is_wanted(self._confidence)

    def publish_mask(self, header: Header, result: Segmentation) -> None:
        """Publish the class ids."""
        self._mask.publish(messages.array_to_image(result.labels, header))

    def publish_companions(
        self, header: Header, image_hw: tuple[int, int], result: Segmentation, info: Optional[CameraInfo], fps: float
    ) -> None:
        """Publish what goes with every mask. `info` is the camera's calibration, if known; `fps` masks per second."""
        self._fps.publish(Float32(data=fps))
        self._token_usage.publish(messages.token_usage_message(result.tokens))
        if result.confidence is not None and _is_wanted(self._confidence):
            self._confidence.publish(messages.confidence_to_image(result.confidence, header))
        if info is not None:
            self._camera_info.publish(messages.scale_camera_info(info, image_hw, result.labels.shape, header))

    def publish_pictures(
        self, header: Header, image: np.ndarray, result: Segmentation, settings: LiveSettings
    ) -> None:
        """Publish, for those who look: mask as PNG, colour mask, overlay, token map; all of the mask's size."""
        labels = result.labels
        if _is_wanted(self._mask_png):
            self._mask_png.publish(messages.array_to_png(labels, header))
        if _is_wanted(self._color_mask):
            self._color_mask.publish(messages.array_to_image(self._classes.colorize(labels), header))
        if _is_wanted(self._overlay):
            overlay = draw_overlay(image, labels, self._classes, settings.overlay_alpha)
            if settings.overlay_legend:
                overlay = add_class_legend(overlay, labels, self._classes)
            self._overlay.publish(messages.array_to_image(overlay, header))
        if _is_wanted(self._token_map):
            token_map = draw_token_map(image, result.tokens, labels.shape)
            self._token_map.publish(messages.array_to_image(token_map, header))

    def destroy(self) -> None:
        """Destroy what `__init__` created; nothing may be published any more."""
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)
        self._all.clear()

    def _create(
        self,
        message_type: type,
        topic: str,
        depth: int = _DEPTH,
        durability: QoSDurabilityPolicy = QoSDurabilityPolicy.VOLATILE,
        overridable: bool = False,
    ) -> LifecyclePublisher:
        qos = QoSProfile(
            depth=depth,
            history=QoSHistoryPolicy.KEEP_LAST,
            reliability=QoSReliabilityPolicy.RELIABLE,
            durability=durability,
        )
        options = QoSOverridingOptions.with_default_policies() if overridable else None
        publisher = self._node.create_lifecycle_publisher(
            message_type, topic, qos, qos_overriding_options=options,
            event_callbacks=PublisherEventCallbacks(incompatible_qos=lambda event: self._incompatible(topic, event)),
        )  # fmt: skip
        self._all.append(publisher)
        return publisher

    def _incompatible(self, topic: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        asks = f'asks for an incompatible QoS ({policy}) and receives nothing; change it there'
        problem = f'a subscriber of {topic} {asks}'
        self._on_incompatible(problem)
        self._node.get_logger().warning(problem, throttle_duration_sec=_LOG_PERIOD_S)


def _is_wanted(publisher: LifecyclePublisher) -> bool:
    return publisher.get_subscription_count() > 0
