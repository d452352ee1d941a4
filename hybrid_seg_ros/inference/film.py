"""A camera's frames as a film: the answer to the frame before says which windows merge (`merge_by: previous`).

A window that showed one class, and whose picture changed no more than the camera's motion explains, will show one class
again: what CTS's policy network guesses from the image is known from the frame before, but for what is new. So nothing
is taken for granted that changed, and every part of the image is looked at in single tokens from time to time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.inference.preprocess import FrameGeometry

MERGE_BY = ('policy', 'previous', 'auto')
LOOK_EVERY = 15
"""Frames within which every part of the image is seen in single tokens."""

MAX_AGE_S = 1.5
"""Older answers are not used."""
AUTO_AGE_S = 0.3
"""With `auto`, older answers are not used: motion by then is more than the flow follows."""
CUT_SHARE = 0.5
"""Share of the image that changed at which it is taken for another scene."""
CHANGED_SHARE = 0.06
"""Share of a window's pixels that changed at which it is not merged."""
WATCHED_FRAMES = 3
"""Frames for which a window that changed is watched."""
LEAST_CHANGE = 12.0
"""Grey levels that count as a change, where the rest of the picture is still."""

SUB = 4
"""A patch is looked at as 4 x 4 points."""

_NEVER = -1e6  # of a score: behind all others


@dataclass
class FilmCounts:
    """What a film did so far: frames by who chose their windows, and how often, and why, the frame before did not."""

    frames: Counter
    reasons: Counter


@dataclass(frozen=True)
class _Answer:
    """A frame and the answer to it, at SUB points per patch: grey (h, w) uint8, labels uint8, confidence float32."""

    stamp_s: float
    layout: tuple
    grey: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray


class Film:
    """What is remembered of one camera from frame to frame. Use one per camera, from one thread at a time.

    `merge_by` 'previous': the frame before chooses which windows merge; 'auto': only while it is fresh; 'policy':
    never. Where it does not, the policy network chooses.
    """

    def __init__(self, merge_by: str = 'auto', look_every: int = LOOK_EVERY) -> None:
        if merge_by not in MERGE_BY:
            raise ValueError(f'merge_by: expected {", ".join(MERGE_BY)}, got {merge_by!r}')
        if look_every < 2:
            raise ValueError(f'look_every: expected at least 2 frames, got {look_every}')
        self.merge_by, self.look_every = merge_by, look_every
        self.counts = FilmCounts(Counter(), Counter())
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: Optional[_Answer] = None
        self._now: Optional[tuple[float, tuple, np.ndarray]] = None
        self._watched: Optional[np.ndarray] = None
        self._turn = 0

    def scores(
        self, network_input: np.ndarray, geometry: FrameGeometry, grid_hw: tuple[int, int], stamp_s: float,
        counts: Mapping[int, int],
    ) -> Optional[dict[int, np.ndarray]]:  # fmt: skip
        """Take the next frame, and return the score of each window (gh // w, gw // w) per side w; None: ask the policy.

        `network_input` (H, W, 3) uint8 RGB; `counts[w]` windows of w x w are to be merged. `remember` takes the answer.
        """
        size_hw = (grid_hw[0] * SUB, grid_hw[1] * SUB)
        grey = cv2.cvtColor(network_input, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, size_hw[::-1], interpolation=cv2.INTER_AREA)
        layout = (geometry, grid_hw)
        before, self._before = self._before, None
        self._now = (stamp_s, layout, grey)
        scores, reason = None, self._distrust(before, stamp_s, layout)
        if not reason:
            scores, reason = self._scores_by(before, grey, grid_hw, counts)
        if reason:
            self._watched = None
            self.counts.reasons[reason] += 1
        self.counts.frames['policy' if scores is None else 'previous'] += 1
        return scores

    def remember(self, labels: np.ndarray, confidence: Optional[np.ndarray]) -> None:
        """Take the answer to the frame of the last `scores`: labels (H, W) uint8, confidence (H, W) in [0, 1]."""
        stamp_s, layout, grey = self._now
        geometry, grid_hw = layout
        size_hw = tuple(
            max(1, round(side * cells * SUB / whole))
            for side, cells, whole in zip(geometry.content_hw, grid_hw, geometry.network_hw)
        )

        def sample(values: np.ndarray, padding: float) -> np.ndarray:
            small = cv2.resize(values, size_hw[::-1], interpolation=cv2.INTER_NEAREST)
            missing = [whole - side for whole, side in zip(grey.shape, size_hw)]
            return cv2.copyMakeBorder(small, 0, missing[0], 0, missing[1], cv2.BORDER_CONSTANT, value=padding)

        sure = np.ones(labels.shape, np.float32) if confidence is None else confidence
        self._before = _Answer(stamp_s, layout, grey, sample(labels, 255), sample(sure, 1.0))

    def forget(self, reason: str) -> None:
        """Let the policy network choose for the next frame."""
        self._before = None
        self.counts.reasons[reason] += 1

    def _distrust(self, before: Optional[_Answer], stamp_s: float, layout: tuple) -> str:
        """Return why the answer before says nothing of this frame, '' where it does."""
        if self.merge_by == 'policy':
            return 'not asked for'
        if before is None:
            return 'first frame'
        if before.layout != layout:
            return 'another size'
        age_s = stamp_s - before.stamp_s
        if age_s <= 0:
            return 'clock went back'
        if age_s > (AUTO_AGE_S if self.merge_by == 'auto' else MAX_AGE_S):
            return 'gap'
        return ''

    def _scores_by(
        self, before: _Answer, grey: np.ndarray, grid_hw: tuple[int, int], counts: Mapping[int, int]
    ) -> tuple[Optional[dict[int, np.ndarray]], str]:  # fmt: skip
        motion = self._flow.calc(grey, before.grey, None)  # (h, w, 2): where each point was
        rows, columns = np.indices(grey.shape, np.float32)
        maps = (columns + motion[..., 0], rows + motion[..., 1])
        change = cv2.absdiff(grey, cv2.remap(before.grey, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        changed = (change > max(LEAST_CHANGE, 4.0 * float(np.median(change)))).astype(np.uint8)
        if changed.mean() > CUT_SHARE or np.median(change) > 2 * LEAST_CHANGE:
            return None, 'cut'
        labels = cv2.remap(before.labels, *maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=254)
        sure = cv2.remap(before.confidence, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

        cells = grid_hw[0] * grid_hw[1]
        cell_of = np.repeat(np.repeat(np.arange(cells).reshape(grid_hw), SUB, 0), SUB, 1)
        classes, label = np.unique(labels, return_inverse=True)
        votes = np.bincount(cell_of.ravel() * len(classes) + label.ravel(), minlength=cells * len(classes))
        votes = votes.reshape(*grid_hw, len(classes))
        sure = _window_means(sure, SUB)
        before_watched = 0 if self._watched is None else np.maximum(self._watched - 1, 0)
        watched = np.where(_window_means(changed, SUB) > CHANGED_SHARE, WATCHED_FRAMES, before_watched)
        self._watched = watched
        single = (watched > 0) | self._looked_at(grid_hw, max(counts, default=2))
        scores, covered = {}, 0
        for window in sorted(counts, reverse=True):
            counted = _window_sums(votes, window)
            even = counted.max(2) / (SUB * window) ** 2
            score = even + 0.1 * _window_means(sure, window)
            kept_single = _window_sums(single[..., None], window)[..., 0] > 0
            scores[window] = np.where(kept_single, score + _NEVER, score).astype(np.float32)
            if np.count_nonzero(~kept_single) - covered // window**2 < counts[window]:
                return None, 'too much changed'
            covered += counts[window] * window**2
        return scores, ''

    def _looked_at(self, grid_hw: tuple[int, int], window: int) -> np.ndarray:
        """Return (gh, gw) bool: the cells whose turn it is to be single, in blocks of a window's size."""
        self._turn = (self._turn + 1) % self.look_every
        rows, columns = np.indices(grid_hw) // window
        return (rows * 7 + columns * 4) % self.look_every == self._turn


def _window_sums(cells: np.ndarray, window: int) -> np.ndarray:
    """Add up what each whole window holds: (gh, gw, C) -> (gh // window, gw // window, C)."""
    rows, columns = cells.shape[0] // window, cells.shape[1] // window
    whole = cells[: rows * window, : columns * window]
    return whole.reshape(rows, window, columns, window, -1).sum((1, 3))


def _window_means(values: np.ndarray, window: int) -> np.ndarray:
    """Average each whole window: (h, w) -> (h // window, w // window)."""
    return _window_sums(values[..., None], window)[..., 0] / window**2
