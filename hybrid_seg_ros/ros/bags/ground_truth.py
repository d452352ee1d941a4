"""Label images out of messages, and a bag's ground truth by the stamp of the frame it belongs to."""

from __future__ import annotations

from typing import Any, Optional, Protocol

import numpy as np

from hybrid_seg_ros.data.encoded_picture import open_picture
from hybrid_seg_ros.data.label_codes import label_id_code
from hybrid_seg_ros.ros.bags.bag_reader import COMPRESSED_IMAGE, BagError, BagReader, BagTopic
from hybrid_seg_ros.ros.bags.message_window import KEPT_BYTES, MessageWindow
from hybrid_seg_ros.ros.image_decoding import grey_values


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

    Their ids are checked and read as `label_id_code` says.
    """

    def __init__(
        self, bag: BagReader, topic: BagTopic, classes: Optional[int] = None, void: Optional[int] = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:  # fmt: skip
        self._bag = bag
        self.name = topic.name
        self._code = label_id_code(classes, void)
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
            values = compressed_to_values(content) if is_png else grey_values(content)
        except ValueError as error:
            raise UnreadableLabelsError(f'{place}: {error}') from error
        return self._code.decode(place, values)


def have_one_aspect(image_hw: tuple[int, int], labels_hw: tuple[int, int]) -> bool:
    """Tell whether labels may be an image's at another size: sides in one proportion, but for what rounding takes."""
    return abs(image_hw[0] * labels_hw[1] - image_hw[1] * labels_hw[0]) <= max(*image_hw, *labels_hw)


def compressed_to_values(message: Any) -> np.ndarray:
    """Return the values (H, W) uint8 or uint16 of a lossless CompressedImage, of a palette the indices.

    Raises ValueError for anything else.
    """
    data = np.frombuffer(message.data, np.uint8)
    try:
        return open_picture(data).values(turned=False)
    except ValueError as error:
        raise ValueError(f'{error}; {data.size} bytes (format {message.format!r})') from error
