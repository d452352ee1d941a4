"""Arrays and reports to the messages that the node publishes; images are RGB on our side of this file."""

from __future__ import annotations

import copy
import sys

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header, Int32MultiArray, MultiArrayDimension

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.segmentation import TokenReport

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
