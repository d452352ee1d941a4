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
from hybrid_seg_ros.segmentation import TokenReport

MERGE_BY = ('policy', 'previous', 'auto')
LOOK_EVERY = 30
"""Frames within which every part of the image is seen in single tokens."""

MAX_AGE_S = 1.5
"""Older answers are not used."""
AUTO_AGE_S = 0.3
"""With `auto`, older answers are not used: motion by then is more than the flow follows."""
CHANGE = 20
"""Levels outside of what the picture before shows nearby that count as a change."""
CHANGED_SHARE = 0.5
"""Share of a patch's points that changed at which it is watched."""
CUT_SHARE = 0.25
"""Share of the patches that changed at which the image is taken for another scene."""
WATCHED_FRAMES = 2
"""Frames for which a patch that changed is watched."""

SUB = 4
"""A patch is looked at as 4 x 4 points."""


@dataclass(frozen=True)
class _Answer:
    """A frame and the answer to it, at SUB points per patch: picture (h, w, 3), labels (h, w) uint8, confidence."""

    stamp_s: float
    layout: tuple
    picture: np.ndarray
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
        self.counts: Counter[str] = Counter()
        """Frames by who chose their windows, and of those by the policy network, why: `policy: gap`."""
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: Optional[_Answer] = None
        self._now: Optional[tuple[float, tuple, np.ndarray]] = None
        self._frame = 0
        self._distrusted = ''
        """Why the frame before does not choose the windows of this one."""
        self._watched = self._merged_for = np.zeros((0, 0), np.int64)  # (gh, gw): frames still to watch; since single

    def scores(
        self, network_input: np.ndarray, geometry: FrameGeometry, patch_size: int, stamp_s: float,
        counts: Mapping[int, int],
    ) -> Optional[dict[int, np.ndarray]]:  # fmt: skip
        """Take the next frame, and return the score of each window (gh // w, gw // w) per side w; None: ask the policy.

        `network_input` (H, W, 3) uint8 RGB; `counts[w]` windows of w x w are to be merged. `remember` takes the answer.
        """
        if self.merge_by == 'policy':
            self._before = self._now = None
            self._distrusted = 'not asked for'
            return None
        layout = (geometry, patch_size)
        grid_hw = tuple(-(-side // patch_size) for side in network_input.shape[:2])
        picture = _points(network_input, network_input.shape[:2], patch_size, grid_hw, cv2.INTER_AREA, 0)
        before, self._before = self._before, None
        self._now = (stamp_s, layout, picture)
        self._frame += 1
        if self._watched.shape != grid_hw:
            self._watched = self._merged_for = np.zeros(grid_hw, np.int64)
        self._distrusted = self._distrust(before, stamp_s, layout)
        if self._distrusted:
            return None
        scores, self._distrusted = self._scores_by(before, picture, grid_hw, counts)
        return scores

    def remember(self, labels: np.ndarray, confidence: Optional[np.ndarray], tokens: TokenReport) -> None:
        """Take the answer to the frame of the last `scores`, and count who chose its windows, as `tokens` say.

        `labels` (H, W) uint8, `confidence` (H, W) in [0, 1].
        """
        reason = self._distrusted or 'another camera'  # of the batch needed it
        self.counts['previous' if tokens.merged_by == 'previous' else f'policy: {reason}'] += 1
        if self._now is None:
            return
        stamp_s, layout, picture = self._now
        geometry, patch_size = layout

        def points(values: np.ndarray, padding: float) -> np.ndarray:
            return _points(values, geometry.content_hw, patch_size, tokens.grid_hw, cv2.INTER_NEAREST, padding)

        sure = np.ones(labels.shape, np.float32) if confidence is None else confidence
        self._merged_for = np.where(tokens.window_size > 1, self._merged_for + 1, 0)
        self._before = _Answer(stamp_s, layout, picture, points(labels, 255), points(sure, 1.0))

    def _distrust(self, before: Optional[_Answer], stamp_s: float, layout: tuple) -> str:
        """Return why the answer before says nothing of this frame, '' where it does."""
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
        self, before: _Answer, picture: np.ndarray, grid_hw: tuple[int, int], counts: Mapping[int, int]
    ) -> tuple[Optional[dict[int, np.ndarray]], str]:  # fmt: skip
        """Score windows by how even the answer before is in them, carried along with the picture."""
        grey, grey_before = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (picture, before.picture))
        motion = self._flow.calc(grey, grey_before, None)  # (h, w, 2): where each point was
        rows, columns = np.indices(grey.shape, np.float32)
        maps = (columns + motion[..., 0], rows + motion[..., 1])
        was = cv2.remap(before.picture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        nearby = np.ones((3, 3), np.uint8)
        change = cv2.max(cv2.subtract(picture, cv2.dilate(was, nearby)), cv2.subtract(cv2.erode(was, nearby), picture))
        changed = _windows(change.max(2) > CHANGE, SUB).mean((1, 3)) > CHANGED_SHARE
        self._watched = np.where(changed, WATCHED_FRAMES, np.maximum(self._watched - 1, 0))
        if changed.mean() > CUT_SHARE:
            return None, 'cut'
        labels = cv2.remap(before.labels, *maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=254)
        sure = cv2.remap(before.confidence, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cells = grid_hw[0] * grid_hw[1]
        cell_of = np.arange(cells).reshape(grid_hw).repeat(SUB, 0).repeat(SUB, 1)
        classes, label = np.unique(labels, return_inverse=True)
        votes = np.bincount(cell_of.ravel() * len(classes) + label.ravel(), minlength=cells * len(classes))
        votes = votes.reshape(*grid_hw, len(classes))
        sure = _windows(sure, SUB).mean((1, 3))
        # evenness and confidence add up to 2 at most: what changed is last, what has long been unseen before it
        penalty = 4.0 * (self._watched > 0) + 2.0 * self._turn(grid_hw, max(counts, default=2))
        scores = {}
        for window in counts:
            even = _windows(votes, window).sum((1, 3)).max(2) / (SUB * window) ** 2
            worst = _windows(penalty, window).max((1, 3))
            scores[window] = (even + _windows(sure, window).mean((1, 3)) - worst).astype(np.float32)
        return scores, ''

    def _turn(self, grid_hw: tuple[int, int], window: int) -> np.ndarray:
        """Return (gh, gw): 1 where it is the turn of a block of a window's size to be single, 2 where it is overdue."""
        rows, columns = np.indices(grid_hw) // window
        turn = (rows * (-(-grid_hw[1] // window)) + columns + self._frame) % self.look_every == 0
        return np.where(self._merged_for >= self.look_every, 2, turn)


def _points(
    values: np.ndarray, size_hw: tuple[int, int], patch_size: int, grid_hw: tuple[int, int], way: int, padding: float
) -> np.ndarray:  # fmt: skip
    """Return values at SUB points per patch of a grid, of an image that lies at `size_hw`, top left of it."""
    height, width = (max(1, round(side * SUB / patch_size)) for side in size_hw)
    small = cv2.resize(values, (width, height), interpolation=way)
    below, right = grid_hw[0] * SUB - height, grid_hw[1] * SUB - width
    return cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_CONSTANT, value=padding)


def _windows(cells: np.ndarray, window: int) -> np.ndarray:
    """Cut into whole windows: (h, w, ...) -> (h // window, window, w // window, window, ...)."""
    rows, columns = cells.shape[0] // window, cells.shape[1] // window
    whole = cells[: rows * window, : columns * window]
    return whole.reshape(rows, window, columns, window, *cells.shape[2:])
