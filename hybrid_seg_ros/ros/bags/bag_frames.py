"""The frames of a drive as pictures, each with its ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Optional

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.evaluation.film.frame import Frame
from hybrid_seg_ros.ros.bags.drive import Drive
from hybrid_seg_ros.ros.bags.ground_truth import UnreadableLabelsError, have_one_aspect


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

    def __iter__(self) -> Iterator[Frame]:
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
            yield Frame(index, message.stamp_ns, time_s, image, truth)

    def _truth(self, index: int, stamp_ns: int) -> Optional[np.ndarray]:
        if self._drive.truth is None:
            return None
        try:
            return self._drive.truth.labels_at(stamp_ns)
        except UnreadableLabelsError as error:
            self.unreadable_truth.append(f'frame {index}: {error}')
            return None
