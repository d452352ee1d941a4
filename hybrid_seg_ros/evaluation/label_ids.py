"""Class ids of ground truth that belongs to no data set: how they are read, which are legal, which mean unlabelled."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np

from hybrid_seg_ros.data.file_damage import find_damage
from hybrid_seg_ros.data.image_files import read_label_ids
from hybrid_seg_ros.data.label_codes import IdCode
from hybrid_seg_ros.data.png_file import PNG_SIGNATURE, palette_indices
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
    hint = '; --void takes one more id as unlabelled' if void is None else ''
    return IdCode.plain(UNLABELLED if classes is None else classes, () if void is None else (void,), hint)


def read_label_values(path: Union[str, Path]) -> np.ndarray:
    """Return the values (H, W) uint8 or uint16 of a label file as they are stored; of a palette, the indices.

    Raises ValueError, naming the file, for what is no whole picture of one value per pixel.
    """
    try:
        return read_label_ids(path)
    except cv2.error as error:
        raise ValueError(f'{path}: not a readable image: {error.err}') from error


def decode_label_png(data: np.ndarray) -> np.ndarray:
    """Return the values of a PNG file (N,) uint8 as they are stored, of one with a palette the indices (H, W) uint8.

    Raises ValueError for what is no PNG, or is not all there: decoders may fill up what is missing and say nothing.
    """
    file = data.tobytes()
    if not file.startswith(PNG_SIGNATURE):
        start = file[:8].hex(' ') or 'nothing'
        raise ValueError(f'expected a PNG of labels, got {len(file)} bytes that start with {start}')
    damage = find_damage(file)
    if damage is not None:
        raise ValueError(damage)
    try:
        indices = palette_indices(file)
        values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if indices is None else indices
    except cv2.error as error:
        raise ValueError(f'the PNG cannot be decoded ({error.err})') from error
    if values is None:
        raise ValueError('the PNG cannot be decoded')
    return values
