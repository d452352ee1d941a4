"""A made-up data set in CamVid's layout, small enough to train on in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_camvid_folder(folder: Path, train: int, val: int) -> Path:
    """Write grey pictures of a bright sky (0) over a dark road (3), with a line of void (11) between."""
    rng = np.random.default_rng(0)
    for split, count in (('train', train), ('val', val)):
        for kind in ('images', 'labels'):
            (folder / split / kind).mkdir(parents=True)
        for index in range(count):
            horizon = 30 + 8 * index
            labels = np.full((72, 96), 3, np.uint8)
            labels[:horizon], labels[horizon] = 0, 11
            image = np.where(labels[:, :, None] == 0, 210, 50) + rng.integers(-20, 20, (72, 96, 3))
            cv2.imwrite(str(folder / split / 'images' / f'{index}.png'), image.astype(np.uint8))
            cv2.imwrite(str(folder / split / 'labels' / f'{index}.png'), labels)
    return folder
