"""CTS token merging as pure functions: which windows share a token, and the layout that follows.

Source: "Content-aware Token Sharing" (Lu et al., CVPR 2023), section 3, and section 1 of the paper this package is
built on: of the 256 2x2 windows of a 32x32 grid, the 103 with the highest policy score share one token each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_seg_ros.network.token_layout import TokenGroup, TokenLayout, ascending


def choose_windows(scores: Tensor, count: int, grid_hw: tuple[int, int], window: int = 2) -> TokenLayout:
    """Merge the `count` windows of highest score; tokens stay in raster order, single ones first.

    `scores` (B, gh // window, gw // window): higher = rather share. A last odd row or column is never merged.
    Shapes depend on `count` alone. count = 0 gives the identity layout.
    """
    windows_hw = (grid_hw[0] // window, grid_hw[1] // window)
    if scores.ndim != 3 or tuple(scores.shape[1:]) != windows_hw:
        raise ValueError(f'scores: expected (B, {windows_hw[0]}, {windows_hw[1]}), got {tuple(scores.shape)}')
    batch, device = scores.shape[0], scores.device
    if count == 0:
        return TokenLayout.identity(batch, grid_hw, device)
    chosen = ascending(scores.flatten(1).topk(count, dim=1, sorted=False).indices)  # (B, count), raster order
    rows = torch.div(chosen, windows_hw[1], rounding_mode='floor')
    origins = rows * window * grid_hw[1] + (chosen - rows * windows_hw[1]) * window
    merged = TokenGroup(window, origins)
    covered = merged.cells(grid_hw).flatten(1)  # (B, count * window**2)
    num_cells = grid_hw[0] * grid_hw[1]
    # Sorting the cell indices with the covered ones pushed behind leaves the single cells in raster order,
    # without a data-dependent shape.
    order = torch.arange(num_cells, device=device).expand(batch, -1)
    order = order.scatter(1, covered, covered + num_cells)
    singles = ascending(order)[:, : num_cells - covered.shape[1]]
    return TokenLayout(grid_hw, (TokenGroup(1, singles), merged) if singles.shape[1] else (merged,))
