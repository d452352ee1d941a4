"""Ground truth of frames, by their stamps: from a topic of the bag, or from a folder of label files."""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from hybrid_seg_ros.data.encoded_picture import open_picture
from hybrid_seg_ros.data.image_files import list_images, read_label_ids
from hybrid_seg_ros.data.label_codes import label_id_code
from hybrid_seg_ros.ros.bags.bag_content import COMPRESSED_IMAGE, NANOSECONDS, BagError, BagMessage, BagTopic, with_bar
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.image_decoding import grey_values

KEPT_BYTES = 256 * 2**20

TOLERANCE_NS = 1_000_000
"""How far a file's stamp may be from the frame's, for names with fewer than nine decimals."""

_SECONDS = re.compile(r'(\d+)[._](\d{1,9})', re.ASCII)
_NANOSECONDS = re.compile(r'\d+', re.ASCII)


class UnreadableLabelsError(BagError):
    """Ground truth of one frame that is no picture of one value per pixel; the message says where, and why."""


class GroundTruth:
    """Labels of frames. `name` says where they are from, `stamps_ns` which frames they are for, ascending.

    Ids are checked and read as `label_id_code` says of `classes` and `void`.
    """

    name: str
    stamps_ns: tuple[int, ...]

    def __init__(self, classes: Optional[int], void: Optional[int]) -> None:
        self._code = label_id_code(classes, void)

    def labels_at(self, stamp_ns: int) -> Optional[np.ndarray]:
        """Return the labels (H, W) uint8 of the frame with this stamp, 255 where unlabelled; None if it has none.

        Raises UnreadableLabelsError for what cannot be decoded, which may be a damaged picture among others; and
        another ValueError for ids that are not legal, as they come of wrong settings. Both name the place.
        """
        try:
            found = self._read(stamp_ns)
        except ValueError as error:
            raise UnreadableLabelsError(str(error)) from error
        return None if found is None else self._code.decode(*found)

    def _read(self, stamp_ns: int) -> Optional[tuple[str, np.ndarray]]:
        """Return where the labels of a frame are, and the values (H, W) that stand there. Raises ValueError."""
        raise NotImplementedError


class TopicTruth(GroundTruth):
    """The label images of one topic, decoded when asked for; `kept_bytes` of them stay in memory as recorded."""

    def __init__(
        self, bag: BagReader, topic: BagTopic, classes: Optional[int] = None, void: Optional[int] = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:  # fmt: skip
        super().__init__(classes, void)
        self._bag = bag
        self.name = topic.name
        self._messages = _MessageWindow(bag, topic, kept_bytes)
        self.stamps_ns = self._messages.stamps_ns

    def _read(self, stamp_ns: int) -> Optional[tuple[str, np.ndarray]]:
        message = self._messages.at(stamp_ns)
        if message is None:
            return None
        content = self._bag.deserialize(message)
        place = f'bag {self._bag.path}: {self.name} at {stamp_ns / 1e9:.3f} s'
        try:
            is_png = message.topic.msgtype == COMPRESSED_IMAGE
            return place, compressed_to_values(content) if is_png else grey_values(content)
        except ValueError as error:
            raise ValueError(f'{place}: {error}') from error


class FolderTruth(GroundTruth):
    """The label images of a folder. They are read when asked for.

    A name is the frame's header stamp: nanoseconds (1700000000066666667.png), or seconds with their decimals behind a
    point or an underscore (1700000000.0667.png is 66.7 ms after 1700000000.png would be). A frame has the labels whose
    stamp is nearest, and within TOLERANCE_NS.
    """

    def __init__(self, folder: Path, classes: Optional[int] = None, void: Optional[int] = None) -> None:
        """Read the names. Raises ValueError for a folder without PNG files, or names that are no stamps."""
        super().__init__(classes, void)
        self.name = str(folder)
        self._files = dict(sorted(_files_by_stamp(folder).items()))
        self.stamps_ns = tuple(self._files)

    def _read(self, stamp_ns: int) -> Optional[tuple[str, np.ndarray]]:
        place = bisect_left(self.stamps_ns, stamp_ns)
        nearest = min(self.stamps_ns[max(place - 1, 0) : place + 1], key=lambda each: abs(each - stamp_ns))
        if abs(nearest - stamp_ns) > TOLERANCE_NS:
            return None
        return str(self._files[nearest]), read_label_ids(self._files[nearest])


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


def parse_stamp_ns(name: str) -> Optional[int]:
    """Return the stamp that a file name without its suffix stands for, in nanoseconds; None if it is no stamp."""
    if _NANOSECONDS.fullmatch(name):
        return int(name)
    seconds = _SECONDS.fullmatch(name)
    return None if seconds is None else int(seconds[1]) * NANOSECONDS + int(seconds[2].ljust(9, '0'))


def _files_by_stamp(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        raise ValueError(f'{folder}: expected a folder of label images')
    files = list_images(folder, ('.png',))
    if not files:
        raise ValueError(f'{folder}: expected label images, PNG files named by stamp, found none')
    by_stamp: dict[int, Path] = {}
    unnamed = [file for file in files if parse_stamp_ns(file.stem) is None]
    if unnamed:
        raise ValueError(
            f"{folder}: expected the frame's stamp as name, nanoseconds (1700000000066666667.png) or seconds "
            f'(1700000000.066666667.png, 1700000000_066666667.png), got {unnamed[0].name!r}'
            + (f' and {len(unnamed) - 1} more' if len(unnamed) > 1 else '')
        )
    for file in files:
        earlier = by_stamp.setdefault(parse_stamp_ns(file.stem), file)
        if earlier is not file:
            raise ValueError(f'{folder}: {earlier.name} and {file.name} are of the same stamp')
    return by_stamp


class _MessageWindow:
    """Messages are looked up in any order, from any thread. Those not kept are read again, from the last on if it can.

    So the order of the bag is quick; going back further than `kept_bytes` reads the bag from its beginning.
    """

    def __init__(self, bag: BagReader, topic: BagTopic, kept_bytes: int = KEPT_BYTES) -> None:
        """Read the topic once. Raises BagError for a bag that cannot be read."""
        self._bag, self._topic, self._kept_bytes = bag, topic, kept_bytes
        self._lock = threading.Lock()
        self._places: dict[int, int] = {}  # of a stamp, in the order of the bag
        self._kept: dict[int, BagMessage] = {}  # by place, the oldest first
        self._size = 0
        self._ahead: Iterator[BagMessage] = iter(())
        self._next: Optional[int] = None  # the place of the first message of `_ahead`
        for place, message in enumerate(with_bar(bag.messages([topic]), 'read labels', topic.count)):
            self._places[message.stamp_ns] = place
            if self._size + len(message.cdr) <= kept_bytes:
                self._keep(place, message)
        self.stamps_ns = tuple(sorted(self._places))

    def at(self, stamp_ns: int) -> Optional[BagMessage]:
        """Return the message with this header stamp, the last one if there are several; None if there is none."""
        place = self._places.get(stamp_ns)
        if place is None:
            return None
        with self._lock:
            message = self._kept.get(place)
            return self._read(place) if message is None else message

    def _read(self, wanted: int) -> BagMessage:
        if self._next is None or self._next > wanted:
            self._ahead, self._next = self._bag.messages([self._topic]), 0
        for message in self._ahead:
            place, self._next = self._next, self._next + 1
            self._keep(place, message)
            if place == wanted:
                return message
        raise RuntimeError(f'{self._topic.name}: message {wanted} was there before')

    def _keep(self, place: int, message: BagMessage) -> None:
        if place not in self._kept:
            self._kept[place] = message
            self._size += len(message.cdr)
        while self._size > self._kept_bytes:
            self._size -= len(self._kept.pop(next(iter(self._kept))).cdr)
