"""The frames of a bag's camera topic as pictures, each with its ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from tqdm import tqdm

from hybrid_seg_ros.evaluation.sequence.frame import Frame
from hybrid_seg_ros.ros.bags.bag_reader import COMPRESSED_IMAGE, BagReader, BagTopic
from hybrid_seg_ros.ros.bags.ground_truth import LabelSource
from hybrid_seg_ros.ros.compressed_decoding import compressed_to_rgb
from hybrid_seg_ros.ros.image_decoding import image_to_rgb


class BagFrames:
    """Iterates over the frames of one topic, decoding each; with a progress bar.

    Frames that cannot be decoded are left out, and named in `unreadable`.
    """

    def __init__(
        self, bag: BagReader, camera: BagTopic, truth: Optional[LabelSource] = None, limit: Optional[int] = None,
        title: str = 'evaluate',
    ) -> None:  # fmt: skip
        self._bag, self._camera, self._truth, self._limit, self._title = bag, camera, truth, limit, title
        self.unreadable: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        decode = compressed_to_rgb if self._camera.msgtype == COMPRESSED_IMAGE else image_to_rgb
        total = min(self._camera.count, self._limit or self._camera.count)
        self.unreadable.clear()
        messages = self._bag.messages([self._camera])
        with tqdm(total=total, desc=self._title, unit='frame', disable=None) as bar:
            for index, message in zip(range(total), messages):
                try:
                    image = decode(self._bag.deserialize(message))
                except ValueError as error:
                    self.unreadable.append(f'frame {index} (stamp {message.stamp_ns}): {error}')
                else:
                    truth = None if self._truth is None else self._truth.labels_at(message.stamp_ns)
                    yield Frame(index, message.stamp_ns, image, truth)
                bar.update()
