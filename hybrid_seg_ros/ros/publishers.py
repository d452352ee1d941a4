"""Publishers: what the node publishes of one camera, when, and as which messages; pictures only for subscribers."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any, Optional

import cv2
import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32, Header, Int32MultiArray, MultiArrayDimension

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros.camera_topics import remapped
from hybrid_seg_ros.ros.parameters import LiveSettings
from hybrid_seg_ros.ros.qos import reliable_qos
from hybrid_seg_ros.segmentation import Segmentation, TokenReport
from hybrid_seg_ros.visualization import add_class_legend, draw_overlay, draw_token_map

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks
try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # apt has vision_msgs, PyPI has not; without it the node publishes no label_info
    LabelInfo = VisionClass = None

# Label maps are runs of one value: run lengths alone shrink them as much as searching does, in a fraction of the time;
# the difference to the row above costs least as a filter, where OpenCV lets one choose (4.5 does not, 4.12 does).
_PNG_SETTINGS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *((cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP) if hasattr(cv2, 'IMWRITE_PNG_FILTER') else ()),
)

_DEPTH = 5
"""The last ones are kept, so that a slow subscriber loses old masks and holds nobody up."""

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
        if LabelInfo is not None:
            qos = reliable_qos(1)
            qos.durability = QoSDurabilityPolicy.TRANSIENT_LOCAL
            self._label_info = self._create(LabelInfo, f'{prefix}/label_info', qos=qos)

    def publish_label_info(self) -> None:
        """Publish what the class ids mean, for present and future subscribers, if vision_msgs is installed."""
        if self._label_info is not None:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self._label_info.publish(label_info_message(self._classes, header))

    @property
    def needs_confidence(self) -> bool:
        """Whether somebody subscribes to it."""
        return self._confidence.get_subscription_count() > 0

    def publish_mask(self, header: Header, result: Segmentation) -> None:
        """Publish the class ids."""
        self._mask.publish(array_to_image(result.labels, header))

    def publish_companions(
        self, header: Header, image_hw: tuple[int, int], result: Segmentation, info: Optional[CameraInfo], fps: float
    ) -> None:
        """Publish what goes with every mask. `info` is the camera's calibration, if known; `fps` masks per second."""
        self._fps.publish(Float32(data=fps))
        self._token_usage.publish(token_usage_message(result.tokens))
        if result.confidence is not None and self._confidence.get_subscription_count():
            self._confidence.publish(confidence_to_image(result.confidence, header))
        if info is not None:
            self._camera_info.publish(scale_camera_info(info, image_hw, result.labels.shape, header))

    def publish_pictures(
        self, header: Header, image: np.ndarray, result: Segmentation, settings: LiveSettings
    ) -> None:
        """Publish, for those who look: mask as PNG, colour mask, overlay, token map; all of the mask's size."""
        labels = result.labels
        if self._mask_png.get_subscription_count():
            self._mask_png.publish(array_to_png(labels, header))
        if self._color_mask.get_subscription_count():
            self._color_mask.publish(array_to_image(self._classes.colorize(labels), header))
        if self._overlay.get_subscription_count():
            overlay = draw_overlay(image, labels, self._classes, settings.overlay_alpha)
            if settings.overlay_legend:
                overlay = add_class_legend(overlay, labels, self._classes)
            self._overlay.publish(array_to_image(overlay, header))
        if self._token_map.get_subscription_count():
            token_map = draw_token_map(image, result.tokens, labels.shape)
            self._token_map.publish(array_to_image(token_map, header))

    def destroy(self) -> None:
        """Destroy what `__init__` created; nothing may be published any more."""
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)
        self._all.clear()

    def _create(
        self, message_type: type, topic: str, overridable: bool = False, qos: Optional[QoSProfile] = None
    ) -> LifecyclePublisher:
        options = QoSOverridingOptions.with_default_policies() if overridable else None
        publisher = self._node.create_lifecycle_publisher(
            message_type, topic, qos or reliable_qos(_DEPTH), qos_overriding_options=options,
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


def array_to_image(picture: np.ndarray, header: Header) -> Image:
    """Return an Image, `mono8` from (H, W) uint8 or `rgb8` from (H, W, 3) uint8 RGB, with the given header."""
    if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
        raise ValueError(f'expected (H, W) or (H, W, 3) uint8, got {picture.shape} {picture.dtype}')
    message = Image(header=header)
    message.height, message.width = picture.shape[:2]
    message.encoding = 'mono8' if picture.ndim == 2 else 'rgb8'
    message.is_bigendian = int(sys.byteorder == 'big')
    message.step = message.width * (1 if picture.ndim == 2 else 3)
    # frombytes is the one way that is fast in every rclpy: assigning bytes or an array is checked item by item in some.
    message.data.frombytes(memoryview(np.ascontiguousarray(picture)).cast('B'))
    return message


def array_to_png(labels: np.ndarray, header: Header) -> CompressedImage:
    """Return labels (H, W) uint8 as a PNG, lossless, with the `format` that image_transport's plugin writes for mono8.

    Its subscribers read it as the mask (the blank at the end is theirs).
    """
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise ValueError(f'expected labels (H, W) uint8, got {labels.shape} {labels.dtype}')
    message = CompressedImage(header=header, format='mono8; png compressed ')
    message.data.frombytes(memoryview(cv2.imencode('.png', labels, _PNG_SETTINGS)[1]).cast('B'))
    return message


def confidence_to_image(confidence: np.ndarray, header: Header) -> Image:
    """Return confidence (H, W) float32 in [0, 1] as `mono8`, 0 to 255, as the Nav2 segmentation layer reads it."""
    return array_to_image(cv2.convertScaleAbs(confidence, alpha=255.0), header)


def token_usage_message(tokens: TokenReport) -> Int32MultiArray:
    """Return the token counts, stage by stage, as one axis whose label names the entries.

    `data[i]` can be plotted as it is (rqt_plot, PlotJuggler: `/segmentation_node/token_usage/data[1]`);
    `layout.dim[0].label` is for example `total,merged,kept@6,kept@8`.
    """
    stages = tokens.stages
    message = Int32MultiArray(data=list(stages.values()))
    message.layout.dim = [MultiArrayDimension(label=','.join(stages), size=len(stages), stride=len(stages))]
    return message


def scale_camera_info(
    info: CameraInfo, image_hw: tuple[int, int], mask_hw: tuple[int, int], header: Header
) -> CameraInfo:
    """Return the calibration of the mask: that of an image of `image_hw`, resized to `mask_hw`.

    Scales K, P and ROI as image_proc's resize node does. Distortion and rectification do not depend on size.
    """
    scale_y, scale_x = mask_hw[0] / image_hw[0], mask_hw[1] / image_hw[1]
    scaled = copy.deepcopy(info)
    scaled.header = header
    scaled.height, scaled.width = round(info.height * scale_y), round(info.width * scale_x)
    rows = np.array([[scale_x], [scale_y], [1.0]])
    scaled.k = (np.asarray(info.k).reshape(3, 3) * rows).ravel()
    scaled.p = (np.asarray(info.p).reshape(3, 4) * rows).ravel()
    scaled.roi.x_offset, scaled.roi.width = round(info.roi.x_offset * scale_x), round(info.roi.width * scale_x)
    scaled.roi.y_offset, scaled.roi.height = round(info.roi.y_offset * scale_y), round(info.roi.height * scale_y)
    return scaled


def label_info_message(classes: LabelSpace, header: Header):
    """Return a vision_msgs/LabelInfo: what each id of the mask means. None where vision_msgs is not installed.

    `threshold` stays 0: no pixel goes unlabelled for want of confidence. Id 255, unlabelled, has no entry: Nav2's layer
    leaves out ids without a name, and reports names that its parameters do not know as errors.
    """
    if LabelInfo is None:
        return None
    class_map = [VisionClass(class_id=index, class_name=name) for index, name in enumerate(classes.names)]
    return LabelInfo(header=header, class_map=class_map)
