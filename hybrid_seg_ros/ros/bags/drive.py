"""Drive: the frames of one camera in a bag, and their ground truth; as messages, or as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, islice
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.evaluation.film.frame import VideoFrame
from hybrid_seg_ros.model_path import resolve_model_path
from hybrid_seg_ros.ros.bags.bag_content import (
    COMPRESSED_IMAGE,
    MAX_GAP_S,
    NANOSECONDS,
    BagError,
    BagMessage,
    BagTopic,
    with_bar,
)
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.ground_truth import GroundTruth, TopicTruth, UnreadableLabelsError, have_one_aspect
from hybrid_seg_ros.ros.image_decoding import compressed_to_rgb, image_to_rgb

_SHIPPED_BAG = 'package://hybrid_seg_ros/bags/camvid_val'


class Drive:
    """One camera topic of an open bag, up to `limit` frames of it, with the ground truth where there is some.

    `stamps_ns` are the header stamps, `times_s` the seconds since the first frame: of the stamps if each is later than
    the one before, else of the recording. `rate_hz` is the mean rate of recording, which a replay keeps; 0 where
    that says nothing, as of a single frame or of a bag that was written with one time for all. Long gaps are
    shortened in both, as a replay does (MAX_GAP_S).
    """

    def __init__(
        self, bag: BagReader, topic: Optional[str] = None, label_topic: Optional[str] = None,
        limit: Optional[int] = None, truth: Optional[GroundTruth] = None, void: Optional[int] = None,
        classes: Optional[int] = None, with_labels: bool = True,
    ) -> None:  # fmt: skip
        """Read the stamps, of `limit` frames only. Raises BagError where the bag does not hold the topics.

        Ground truth is `truth`, or else `label_topic`, or else the label topic that belongs to the camera, if one does
        (BagReader.select_label_topic); none at all without `with_labels`. `void` and `classes` are how the ids of a
        topic are read (label_id_code).
        """
        self.bag, self.limit = bag, limit
        camera = bag.select_camera_topic(topic)
        log_ns, stamps_ns = _read_times(bag, camera, limit)
        self.camera = bag.select_camera_topic(camera.name)  # counted anew, where reading has found damage
        recorded_s = _since_first(log_ns)
        self.rate_hz = (len(recorded_s) - 1) / recorded_s[-1] if recorded_s[-1] else 0.0
        self.stamps_ns = stamps_ns[:limit]
        self.times_s = _since_first(self.stamps_ns) if _is_ascending(self.stamps_ns) else recorded_s[:limit]
        self.truth: Optional[GroundTruth] = None
        if with_labels:
            self.truth = truth if truth is not None else self._find_truth(label_topic, classes, void)

    @property
    def is_compressed(self) -> bool:
        """Whether the frames are compressed images."""
        return self.camera.msgtype == COMPRESSED_IMAGE

    def repeated_stamp(self) -> Optional[int]:
        """Return the first header stamp that an earlier frame has, too, in nanoseconds; None if there is none."""
        seen: set[int] = set()
        for stamp_ns in self.stamps_ns:
            if stamp_ns in seen:
                return stamp_ns
            seen.add(stamp_ns)
        return None

    def topic(self, image: str) -> str:
        """Return the topic to play on for a node whose topic is called `image`."""
        return f'{image}/compressed' if self.is_compressed else image

    def frames(self) -> list[BagMessage]:
        """Return the frames as they were recorded."""
        return [message for message, _ in zip(self.bag.messages([self.camera]), self.stamps_ns)]

    def image(self, message: BagMessage) -> np.ndarray:
        """Return the picture (H, W, 3) uint8 RGB of one of the frames."""
        content = self.bag.deserialize(message)
        return compressed_to_rgb(content) if self.is_compressed else image_to_rgb(content)

    def images(self, stamps_ns: set[int]) -> dict[int, np.ndarray]:
        """Return the pictures of these stamps."""
        messages = (message for message in self.bag.messages([self.camera]) if message.stamp_ns in stamps_ns)
        return {message.stamp_ns: self.image(message) for message in messages}

    def _find_truth(self, name: Optional[str], classes: Optional[int], void: Optional[int]) -> Optional[GroundTruth]:
        """Return the ground truth of the topic `name`, or of the one that belongs to the camera.

        A topic whose messages are all damaged is an error if it was asked for by name; else the bag's `damage` says it.
        """
        topic = self.bag.select_label_topic(name, camera=self.camera)
        truth = None if topic is None else TopicTruth(self.bag, topic, classes, void)
        if truth is None or truth.stamps_ns:
            return truth
        if name is not None:
            raise BagError(f'bag {self.bag.path}: {topic.name} holds no readable ground truth ({self.bag.damage})')
        return None


@contextmanager
def opened_drive(
    bag: Optional[Path], topic: Optional[str] = None, label_topic: Optional[str] = None, limit: Optional[int] = None,
    with_labels: bool = True,
) -> Iterator[Drive]:  # fmt: skip
    """Open a bag, the one that comes with the package if it is None, and yield a drive; the others are as in Drive."""
    with BagReader(bag or resolve_model_path(_SHIPPED_BAG)) as reader:
        yield Drive(reader, topic, label_topic, limit, with_labels=with_labels)


class BagFrames:
    """Iterates over the frames of a drive, decoding each; with a progress bar.

    Frames that cannot be decoded are left out, and named in `unreadable`; those whose ground truth cannot be have none,
    and are named in `unreadable_truth`.
    """

    def __init__(self, drive: Drive, every: int = 1) -> None:
        """Take every so manyth frame, as of a slower camera."""
        self._drive, self._every = drive, every
        self.unreadable: list[str] = []
        self.unreadable_truth: list[str] = []

    def __iter__(self) -> Iterator[VideoFrame]:
        drive = self._drive
        self.unreadable.clear()
        self.unreadable_truth.clear()
        messages = islice(zip(drive.times_s, drive.bag.messages([drive.camera])), 0, None, self._every)
        total = -(-len(drive.times_s) // self._every)
        bar = tqdm(messages, desc='evaluate', total=total, unit='frame', disable=None)
        for index, (time_s, message) in enumerate(bar):
            try:
                image = drive.image(message)
            except ValueError as error:
                self.unreadable.append(f'frame {index} (stamp {message.stamp_ns}): {error}')
                continue
            truth = self._truth(index, message.stamp_ns)
            if truth is not None and not have_one_aspect(image.shape[:2], truth.shape):
                raise ValueError(
                    f'frame {index} (stamp {message.stamp_ns}): expected ground truth of the aspect of its image, '
                    f'{image.shape[1]}x{image.shape[0]}, got {truth.shape[1]}x{truth.shape[0]} (--no-labels: none)'
                )
            yield VideoFrame(index, message.stamp_ns, time_s, image, truth)

    def _truth(self, index: int, stamp_ns: int) -> Optional[np.ndarray]:
        if self._drive.truth is None:
            return None
        try:
            return self._drive.truth.labels_at(stamp_ns)
        except UnreadableLabelsError as error:
            self.unreadable_truth.append(f'frame {index}: {error}')
            return None


def _read_times(bag: BagReader, camera: BagTopic, limit: Optional[int]) -> tuple[list[int], list[int]]:
    """Return when the frames were recorded, and their stamps, in nanoseconds; two at least, for the sake of a rate."""
    count = None if limit is None else max(limit, 2)
    log_ns, stamps_ns = [], []
    total = camera.count if count is None else min(camera.count, count)
    for message in with_bar(islice(bag.messages([camera]), count), 'read stamps', total):
        log_ns.append(message.log_ns)
        stamps_ns.append(message.stamp_ns)
    return log_ns, stamps_ns


def _is_ascending(times_ns: Sequence[int]) -> bool:
    return all(earlier < later for earlier, later in zip(times_ns, times_ns[1:]))


def _since_first(times_ns: Sequence[int]) -> list[float]:
    gaps_s = ((later - earlier) / NANOSECONDS for earlier, later in zip(times_ns, times_ns[1:]))
    return list(accumulate((min(gap_s, MAX_GAP_S) for gap_s in gaps_s), initial=0.0))
