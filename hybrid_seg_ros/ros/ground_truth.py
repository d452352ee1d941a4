"""Label images out of messages, and a bag's ground truth by the stamp of the frame it belongs to."""

from __future__ import annotations

from typing import Any, Optional

import cv2
import numpy as np

from hybrid_seg_ros.ros.bag_reader import COMPRESSED_IMAGE, BagError, BagReader, BagTopic

_LABEL_ENCODINGS = ('mono8', '8UC1')


class GroundTruth:
    """The label images of one topic. They are kept as recorded and decoded when asked for."""

    def __init__(self, bag: BagReader, topic: BagTopic) -> None:
        self._bag = bag
        self._messages = {message.stamp_ns: message for message in bag.messages([topic])}

    def labels_at(self, stamp_ns: int) -> Optional[np.ndarray]:
        """Return the labels (H, W) uint8 of the frame with this stamp, 255 where unlabelled; None if it has none."""
        message = self._messages.get(stamp_ns)
        if message is None:
            return None
        content = self._bag.deserialize(message)
        try:
            if message.topic.msgtype == COMPRESSED_IMAGE:
                return compressed_to_labels(content)
            return image_to_labels(content)
        except ValueError as error:
            raise BagError(f'bag {self._bag.path}: {message.topic.name} at {stamp_ns / 1e9:.3f} s: {error}') from error


def image_to_labels(message: Any) -> np.ndarray:
    """Return class ids (H, W) uint8 from a `mono8` Image. Raises ValueError for anything else."""
    if message.encoding not in _LABEL_ENCODINGS:
        raise ValueError(f'expected labels encoded as {" or ".join(_LABEL_ENCODINGS)}, got {message.encoding!r}')
    data = np.frombuffer(message.data, np.uint8)
    if data.size < message.step * message.height or message.step < message.width:
        raise ValueError(
            f'expected {message.width}x{message.height} labels, got {data.size} bytes in rows of {message.step}'
        )
    return data[: message.step * message.height].reshape(message.height, message.step)[:, : message.width]


def compressed_to_labels(message: Any) -> np.ndarray:
    """Return class ids (H, W) uint8 from a PNG CompressedImage. Raises ValueError for anything else."""
    labels = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED) if len(message.data) else None
    if labels is None or labels.ndim != 2 or labels.dtype != np.uint8:
        found = 'no image' if labels is None else f'{labels.shape} {labels.dtype}'
        raise ValueError(f'expected a PNG of labels (H, W) uint8, got {found} (format {message.format!r})')
    return labels
