"""Pictures side by side in one image file, each with a line of text above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

BAND, GAP = 24, 6
FONT, SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5


@dataclass(frozen=True)
class Titled:
    """A picture (H, W, 3) uint8 RGB and what it shows, in a few words."""

    title: str
    rgb: np.ndarray


def make_sheet(rows: Sequence[Sequence[Titled]], width: int) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, white where there is nothing; every picture is fitted into `width` pixels.

    Each keeps its aspect; a title that is too long is written smaller.
    """
    if not rows or not all(rows):
        raise ValueError(f'expected at least one picture in each row, got {[len(row) for row in rows]}')
    columns = max(len(row) for row in rows)
    strips = []
    for row in rows:
        heights = [max(1, round(width * each.rgb.shape[0] / each.rgb.shape[1])) for each in row]
        strip = np.full((BAND + max(heights) + GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
        for index, (each, height) in enumerate(zip(row, heights)):
            left = index * (width + GAP)
            fitted = cv2.resize(each.rgb, (width, height), interpolation=cv2.INTER_AREA)
            strip[BAND : BAND + height, left : left + width] = fitted
            text_width = cv2.getTextSize(each.title, FONT, SCALE, 1)[0][0]
            scale = SCALE * min(1.0, width / max(1, text_width))
            cv2.putText(strip, each.title, (left, BAND - 8), FONT, scale, (30, 30, 30), 1, cv2.LINE_AA)
        strips.append(strip)
    return np.concatenate(strips)
