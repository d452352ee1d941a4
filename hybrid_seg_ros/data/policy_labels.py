"""Labels of the policy network: whether the patches of a window may share a token.

Source: CTS (Lu et al., CVPR 2023), section 3.1: a window whose pixels all have one class may.
"""

from __future__ import annotations

import numpy as np

from hybrid_seg_ros.label_space import UNLABELLED

SHARE, DO_NOT_SHARE, IGNORE = 1, 0, 255


def policy_labels(
    labels: np.ndarray, window_px: int = 32, ignore_borders: bool = True, share_unlabelled: bool = True
) -> np.ndarray:
    """Return (H // window_px, W // window_px) uint8: 1 share, 0 do not share, 255 ignored.

    `labels` (H, W) uint8, 255 = unlabelled. A window of one value only may be shared; so may one without any
    label, unless `share_unlabelled` is false: then it is ignored. With `ignore_borders`, windows on the image border
    that hold exactly one class besides unlabelled pixels are ignored: there the label map often just ends early.
    """
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f'expected labels (H, W) uint8, got {labels.shape} {labels.dtype}')
    rows, columns = labels.shape[0] // window_px, labels.shape[1] // window_px
    blocks = labels[: rows * window_px, : columns * window_px].reshape(rows, window_px, columns, window_px)
    blocks = blocks.transpose(0, 2, 1, 3).reshape(rows, columns, window_px**2)
    low, high = blocks.min(2), blocks.max(2)
    targets = np.where(low == high, SHARE, DO_NOT_SHARE).astype(np.uint8)
    if not share_unlabelled:
        targets[low == UNLABELLED] = IGNORE
    if ignore_borders:
        labelled_high = np.where(blocks == UNLABELLED, 0, blocks).max(2)
        one_class_and_void = (high == UNLABELLED) & (low != UNLABELLED) & (low == labelled_high)
        border = np.ones((rows, columns), bool)
        border[1:-1, 1:-1] = False
        targets[one_class_and_void & border] = IGNORE
    return targets
