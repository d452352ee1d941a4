"""Image files as RGB arrays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def read_rgb(path: Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8, RGB. Raises ValueError that names it if it is none."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if bgr is None:
        raise ValueError(f'not a readable image: {path}')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
