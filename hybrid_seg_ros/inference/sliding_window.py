"""Sliding-window inference: overlapping crops whose scores are averaged."""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor


def window_starts(side: int, crop: int, stride: int) -> list[int]:
    """Return where windows start along one axis; the last one is moved back so that it ends at the border."""
    count = max(side - crop + stride - 1, 0) // stride + 1
    return [min(index * stride, max(side - crop, 0)) for index in range(count)]


def sliding_window(predict: Callable[[Tensor], Tensor], image: Tensor, crop: int, stride: int) -> Tensor:
    """Average `predict` over crops of an image.

    `predict` maps (B, 3, h, w) to scores (B, C, h, w); sides smaller than `crop` are taken whole. Returns (B, C, H, W).
    The paper uses crop 512 and stride 341.
    """
    if not 0 < stride <= crop:
        raise ValueError(f'expected 0 < stride <= crop, got stride {stride}, crop {crop}')
    height, width = image.shape[2:]
    total, count = None, image.new_zeros(1, 1, height, width)
    for top in window_starts(height, crop, stride):
        for left in window_starts(width, crop, stride):
            area = (slice(None), slice(None), slice(top, top + crop), slice(left, left + crop))
            scores = predict(image[area])
            if total is None:
                total = torch.zeros(scores.shape[0], scores.shape[1], height, width, device=scores.device)
            total[area] += scores
            count[area] += 1
    return total / count
