"""Class ids of ground truth that belongs to no data set: how they are read, which are legal, which mean unlabelled."""

from __future__ import annotations

from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.data.label_codes import IdCode
from hybrid_seg_ros.data.png_file import palette_indices
from hybrid_seg_ros.label_space import UNLABELLED


def label_id_code(classes: Optional[int] = None, void: Optional[int] = None) -> IdCode:
    """Return the reader of label files, or decoder of arrays, whose values are class ids below `classes`, or 255.

    Without `classes`, ids up to 254 are legal. `void` is an id that means unlabelled, too, as CamVid's 11. A value
    that is not legal is a ValueError that names the file and the value. Raises ValueError for numbers out of range.
    """
    if classes is not None and not 1 <= classes <= UNLABELLED:
        raise ValueError(f'classes: expected 1 to {UNLABELLED}, got {classes}')
    if void is not None and not 0 <= void <= UNLABELLED:
        raise ValueError(f'void: expected a label id, 0 to {UNLABELLED}, got {void}')
    return IdCode.plain(UNLABELLED if classes is None else classes, () if void is None else (void,))


def decode_label_png(data: np.ndarray) -> Optional[np.ndarray]:
    """Return the values of a PNG file (N,) uint8 as they are stored, of one with a palette the indices (H, W) uint8.

    None if it is no image.
    """
    if not data.size:
        return None
    indices = palette_indices(data.tobytes())
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if indices is None else indices
