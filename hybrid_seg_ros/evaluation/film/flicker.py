"""Flicker: labels that change from one frame to the next although the world does not.

A pixel of a frame is followed back to the frame before by optical flow (DIS, Kroeger et al., ECCV 2016, from OpenCV);
where the class there is another, it flickers. Pixels that cannot be followed, because they were hidden or out of sight,
are left out: those whose flow there and back does not end where it began (Sundaram et al., ECCV 2010, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hybrid_seg_ros.label_space import UNLABELLED

LONG_SIDE = 512
"""Flow is computed, and labels are compared, at this many pixels of the longer side, or at the image's own size."""
_RELATIVE, _ABSOLUTE = 0.01, 0.5
"""Of the test there and back: |f + b|^2 < 0.01 (|f|^2 + |b|^2) + 0.5."""


@dataclass(frozen=True)
class Motion:
    """Where the pixels of a frame were in the frame before.

    `source_xy` (h, w, 2) float32 are pixels of the frame before, `is_seen` (h, w) bool whether they can be trusted.
    """

    source_xy: np.ndarray
    is_seen: np.ndarray

    @classmethod
    def between(cls, before: np.ndarray, after: np.ndarray) -> Motion:
        """Follow the pixels of `after` back to `before`: both (H, W, 3) uint8 RGB. Raises ValueError on other sizes."""
        if before.shape != after.shape:
            raise ValueError(f'expected frames of one size, got {before.shape} and {after.shape}')
        first, second = _small_grey(before), _small_grey(after)
        back = _flow(second, first)
        forth = _flow(first, second)
        rows, columns = np.indices(second.shape, dtype=np.float32)
        source_xy = np.stack([columns, rows], axis=-1) + back  # (h, w, 2)
        there = cv2.remap(forth, source_xy, None, cv2.INTER_LINEAR)
        gap = ((back + there) ** 2).sum(-1)
        lengths = (back**2).sum(-1) + (there**2).sum(-1)
        high = np.float32([second.shape[1] - 1, second.shape[0] - 1])
        inside = ((source_xy >= 0) & (source_xy <= high)).all(-1)
        return cls(source_xy, inside & (gap < _RELATIVE * lengths + _ABSOLUTE))

    def flicker(self, before: np.ndarray, after: np.ndarray) -> float:
        """Return the share of pixels that changed their class, in per cent; nan if none can be followed.

        `before` and `after` are label maps (H, W) uint8 of any size; unlabelled pixels are left out.
        """
        size = self.is_seen.shape[::-1]
        first, second = (cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST) for labels in (before, after))
        moved = cv2.remap(first, self.source_xy, None, cv2.INTER_NEAREST)
        counts = self.is_seen & (moved != UNLABELLED) & (second != UNLABELLED)
        return 100.0 * float((moved != second)[counts].mean()) if counts.any() else float('nan')


def _small_grey(image: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, LONG_SIDE / max(grey.shape))
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey


def _flow(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return where each pixel of `source` goes in `target`, as (h, w, 2) float32 offsets (x, y)."""
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(source, target, None)
