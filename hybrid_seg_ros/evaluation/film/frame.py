"""A frame of a video, and what one operating point makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

import numpy as np

from hybrid_seg_ros.segmentation import Segmentation, StageTimings, TokenReport


@dataclass(frozen=True)
class VideoFrame:
    """A frame: `image` (H, W, 3) uint8 RGB; `truth` (h, w) uint8 class ids, 255 unlabelled, None without any.

    `index` counts the frames of the video from 0; frames that could not be read are counted as well. `time_s` is since
    the first frame.
    """

    index: int
    stamp_ns: int
    time_s: float
    image: np.ndarray
    truth: Optional[np.ndarray] = None


@dataclass(frozen=True)
class FrameResult:
    """What came of a frame: `labels` (h, w) uint8 and `tokens` per stage, as TokenReport.stages; empty if not known.

    `timings` are the pipeline's steps; `latency_ms` is from publishing the frame to the arrival of its mask, of a frame
    that went through a node. `report` says where the tokens went, where that is known.
    """

    labels: np.ndarray
    tokens: Mapping[str, int]
    timings: Optional[StageTimings] = None
    latency_ms: Optional[float] = None
    report: Optional[TokenReport] = None

    @classmethod
    def of(cls, segmentation: Segmentation) -> FrameResult:
        """Take what a pipeline returned."""
        tokens = segmentation.tokens
        return cls(segmentation.labels, tokens.stages, segmentation.timings, None, tokens)

    @property
    def time_ms(self) -> Optional[float]:
        """Milliseconds that somebody who waits for the mask sees: latency, or else the pipeline's total."""
        if self.latency_ms is not None:
            return self.latency_ms
        return None if self.timings is None else self.timings.total_ms


@dataclass(frozen=True)
class FrameRecord:
    """The figures of one frame at one operating point; shares in per cent, None where there is nothing to say.

    A frame that got no answer (`answered` is false) has none. `miou` is over the classes of this frame alone.
    `agreement` is the share of pixels that have the class that the dense model gives them, `flicker` that of pixels
    whose class is not the one that their place in the world had in the frame before (see flicker.py).
    """

    index: int
    stamp_ns: int
    time_s: float
    answered: bool
    tokens: Mapping[str, int]
    gflops: Optional[float] = None
    time_ms: Optional[float] = None
    miou: Optional[float] = None
    pixel_accuracy: Optional[float] = None
    agreement: Optional[float] = None
    flicker: Optional[float] = None
