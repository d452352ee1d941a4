"""Label images out of messages, and a bag's ground truth by the stamp of the frame it belongs to."""

from __future__ import annotations

from typing import Any, Optional, Protocol

import numpy as np

from hybrid_seg_ros.evaluation.label_ids import decode_label_png, label_id_code
from hybrid_seg_ros.ros.bags.bag_reader import COMPRESSED_IMAGE, BagError, BagReader, BagTopic
from hybrid_seg_ros.ros.bags.message_window import KEPT_BYTES, MessageWindow

_LABEL_ENCODINGS = ('mono8', '8UC1')


class UnreadableLabelsError(BagError):
    """Ground truth of one frame that is no picture of one value per pixel; the message says where, and why."""


class LabelSource(Protocol):
    """Ground truth of frames. `name` says where it is from, `stamps_ns` which frames it is for, ascending."""

    name: str
    stamps_ns: tuple[int, ...]

    def labels_at(self, stamp_ns: int) -> Optional[np.ndarray]:
        """Return the labels (H, W) uint8 of the frame with this stamp, 255 where unlabelled; None if it has none.

        Raises UnreadableLabelsError for what cannot be decoded, which may be a damaged picture among others; and
        another ValueError for ids that are not legal, as they come of wrong settings.
        """


class GroundTruth:
    """The label images of one topic. They are decoded when asked for; `kept_bytes` of them stay in memory as recorded.

    With `classes` or `void`, their ids are checked and read as `label_id_code` says.
    """

    def __init__(
        self, bag: BagReader, topic: BagTopic, classes: Optional[int] = None, void: Optional[int] = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:  # fmt: skip
        self._bag = bag
        self.name = topic.name
        self._code = None if classes is None and void is None else label_id_code(classes, void)
        self._messages = MessageWindow(bag, topic, kept_bytes)
        self.stamps_ns = self._messages.stamps_ns

    def labels_at(self, stamp_ns: int) -> Optional[np.ndarray]:
        """Return the labels (H, W) uint8 of the frame with this stamp, 255 where unlabelled; None if it has none.

        Raises UnreadableLabelsError, or another ValueError for illegal ids, as LabelSource says.
        """
        message = self._messages.at(stamp_ns)
        if message is None:
            return None
        content = self._bag.deserialize(message)
        place = f'bag {self._bag.path}: {self.name} at {stamp_ns / 1e9:.3f} s'
        try:
            is_png = message.topic.msgtype == COMPRESSED_IMAGE
            labels = compressed_to_labels(content) if is_png else image_to_labels(content)
        except ValueError as error:
            raise UnreadableLabelsError(f'{place}: {error}') from error
        return labels if self._code is None else self._code.decode(place, labels)


def image_to_labels(message: Any) -> np.ndarray:
    """Return class ids (H, W) uint8 from a `mono8` Image. Raises ValueError for anything else."""
    if message.encoding not in _LABEL_ENCODINGS:
        raise ValueError(f'expected labels encoded as {" or ".join(_LABEL_ENCODINGS)}, got {message.encoding!r}')
    data = np.frombuffer(message.data, np.uint8)
    if data.size < message.step * message.height or not 0 < message.width <= message.step or not message.height:
        raise ValueError(
            f'expected {message.width}x{message.height} labels, got {data.size} bytes in rows of {message.step}'
        )
    return data[: message.step * message.height].reshape(message.height, message.step)[:, : message.width]


def compressed_to_labels(message: Any) -> np.ndarray:
    """Return class ids (H, W) uint8 from a PNG CompressedImage. Raises ValueError for anything else."""
    try:
        labels = decode_label_png(np.frombuffer(message.data, np.uint8))
    except ValueError as error:
        raise ValueError(f'{error} (format {message.format!r})') from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        expected = 'expected a PNG of labels (H, W) uint8'
        raise ValueError(f'{expected}, got {labels.shape} {labels.dtype} (format {message.format!r})')
    return labels
