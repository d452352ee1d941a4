"""Pure conversions between ROS messages and arrays; images are RGB on our side of this file."""

from __future__ import annotations

import copy
import sys
from typing import Optional

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header, Int32MultiArray, MultiArrayDimension

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros import cv_bridge_probe
from hybrid_seg_ros.segmentation import TokenReport

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # apt has vision_msgs, PyPI has not; without it the node publishes no label_info
    LabelInfo = VisionClass = None

# Encoding -> (channels, conversion to RGB). 8UC3 and 8UC1 are read as cv_bridge reads them.
_TO_RGB: dict[str, tuple[int, Optional[int]]] = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    '8UC3': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, cv2.COLOR_GRAY2RGB),
}
IMAGE_ENCODINGS = tuple(_TO_RGB)
_JPEG_START, _JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
_PNG_START = b'\x89PNG\r\n\x1a\n'


class BadFrameError(ValueError):
    """A message that holds no usable image; the text says what was expected and what came."""


def image_to_rgb(message: Image) -> np.ndarray:
    """Return the picture as (H, W, 3) uint8 RGB, C-contiguous; without a copy where the message is that already.

    Raises BadFrameError for an unknown encoding, size zero, a step smaller than a row, or too little data.
    """
    if message.encoding not in _TO_RGB:
        return _image_to_rgb_by_cv_bridge(message)
    channels, conversion = _TO_RGB[message.encoding]
    pixels = _pixels(message, channels)
    return np.ascontiguousarray(pixels) if conversion is None else cv2.cvtColor(pixels, conversion)


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """Return a JPEG or PNG picture as (H, W, 3) uint8 RGB. Raises BadFrameError for anything else or a broken file.

    The kind is read from the data: the `format` field is written in too many ways to rely on.
    """
    data = np.frombuffer(message.data, np.uint8)
    start = data[:8].tobytes()
    if not (start.startswith(_JPEG_START) or start == _PNG_START):
        raise BadFrameError(
            f'expected a JPEG or PNG picture, got {data.size} bytes that start with {start.hex(" ") or "nothing"} '
            f'(format {message.format!r})'
        )
    # Some OpenCV versions fill up a truncated JPEG with grey and say nothing; some cameras pad the end with zeros.
    if start.startswith(_JPEG_START) and not data[-64:].tobytes().rstrip(b'\0').endswith(_JPEG_END):
        raise BadFrameError(f'JPEG picture of {data.size} bytes is cut off: it has no end marker')
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise BadFrameError(f'compressed picture of {data.size} bytes (format {message.format!r}) cannot be decoded')
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


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
    """Return a vision_msgs/LabelInfo: what each id of the mask means. None where vision_msgs is not installed."""
    if LabelInfo is None:
        return None
    class_map = [VisionClass(class_id=index, class_name=name) for index, name in enumerate(classes.names)]
    return LabelInfo(header=header, class_map=class_map)


def _pixels(message: Image, channels: int) -> np.ndarray:
    """Return a view of the message's data: (H, W, channels) uint8, rows `step` bytes apart."""
    height, width, step = message.height, message.width, message.step
    if height < 1 or width < 1:
        raise BadFrameError(f'expected an image of at least 1x1 pixel, got {width}x{height}')
    if step < width * channels:
        raise BadFrameError(
            f'expected step >= {width * channels} ({width} pixels of {message.encoding}), got step {step}'
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size < step * height:
        raise BadFrameError(f'expected {step * height} bytes (step {step} x height {height}), got {data.size}')
    return np.ndarray((height, width, channels), np.uint8, buffer=data, strides=(step, channels, 1))


def _image_to_rgb_by_cv_bridge(message: Image) -> np.ndarray:
    """Leave the encodings that are not ours (Bayer, YUV 4:2:2 ...) to cv_bridge, where there is one that works."""
    bridge = cv_bridge_probe.working_bridge()
    if bridge is None:
        raise BadFrameError(
            f'unknown encoding {message.encoding!r}; legal are {", ".join(IMAGE_ENCODINGS)} '
            f'(others need cv_bridge: {cv_bridge_probe.problem()})'
        )
    if message.height < 1 or message.width < 1 or len(message.data) < message.step * message.height:
        raise BadFrameError(
            f'expected an image of at least 1x1 pixel and step x height bytes, got {message.width}x{message.height}, '
            f'step {message.step}, {len(message.data)} bytes'
        )
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, 'rgb8'))
    except Exception as error:  # it raises its own error class, TypeError, ValueError or cv2.error, by version
        raise BadFrameError(f'cv_bridge cannot convert encoding {message.encoding!r} to rgb8: {error}') from error
