"""Token merging as pure functions: which windows share a token, and the layout that follows.

Sources: CTS ("Content-aware Token Sharing", Lu et al., CVPR 2023), section 3, and section 1 of the paper that this
package is built on: of the 256 2x2 windows of a 32x32 grid, the 103 with the highest policy score share one token each.
STEP (arXiv 2509.14165): superpatches, windows of several sizes, large ones first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_seg_ros.network.token_layout import TokenGroup, TokenLayout, ascending


def choose_windows(scores: Mapping[int, Tensor], counts: Mapping[int, int], grid_hw: tuple[int, int]) -> TokenLayout:
    """Merge, per window size, the windows of highest score that no larger one covers.

    `scores[w]` (B, gh // w, gw // w): higher = rather share; `counts[w]` windows of w x w are merged. What is left over
    of the grid at the right and at the bottom is never merged. Tokens are in raster order, single ones first, then
    group by group with growing windows. Shapes depend on `counts` alone; without any the layout is the identity.
    """
    sizes = sorted((window for window, count in counts.items() if count), reverse=True)
    for window in sizes:
        windows_hw = (grid_hw[0] // window, grid_hw[1] // window)
        if window not in scores:
            raise ValueError(f'scores: expected those of {window}x{window} windows, got sizes {sorted(scores)}')
        if scores[window].ndim != 3 or tuple(scores[window].shape[1:]) != windows_hw:
            got = tuple(scores[window].shape)
            raise ValueError(f'scores[{window}]: expected (B, {windows_hw[0]}, {windows_hw[1]}), got {got}')
    if not sizes:
        first = next(iter(scores.values()))
        return TokenLayout.identity(int(first.shape[0]), grid_hw, first.device)
    groups: list[TokenGroup] = []
    taken: Optional[Tensor] = None  # (B, h, w) bool: windows of the size before that larger ones cover
    for position, window in enumerate(sizes):
        chosen, taken = _highest(scores[window], counts[window], taken)
        columns = grid_hw[1] // window
        rows = torch.div(chosen, columns, rounding_mode='floor')
        groups.append(TokenGroup(window, rows * window * grid_hw[1] + (chosen - rows * columns) * window))
        if position + 1 < len(sizes):
            smaller = sizes[position + 1]
            taken = _in_smaller(taken, window // smaller, (grid_hw[0] // smaller, grid_hw[1] // smaller))
    groups.reverse()
    singles = _single_cells(groups, grid_hw)
    return TokenLayout(grid_hw, (TokenGroup(1, singles), *groups) if singles.shape[1] else tuple(groups))


def _highest(scores: Tensor, count: int, taken: Optional[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the indices (B, count), in raster order, of the highest scores (B, h, w) not taken, and all then taken."""
    free = scores if taken is None else scores.masked_fill(taken, float('-inf'))
    chosen = ascending(free.flatten(1).topk(count, dim=1, sorted=False).indices)
    mask = torch.zeros_like(scores).flatten(1).scatter(1, chosen, torch.ones_like(chosen, dtype=scores.dtype))
    mask = mask.unflatten(1, scores.shape[1:]) > 0
    return chosen, mask if taken is None else mask | taken


def _in_smaller(taken: Tensor, ratio: int, windows_hw: tuple[int, int]) -> Tensor:
    """Return which of the smaller windows (B, *windows_hw) lie in taken larger ones (B, h, w)."""
    inside = taken.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
    return F.pad(inside, (0, windows_hw[1] - inside.shape[2], 0, windows_hw[0] - inside.shape[1]))


def _single_cells(groups: list[TokenGroup], grid_hw: tuple[int, int]) -> Tensor:
    """Return (B, n): the cells that no window covers, in raster order."""
    covered = torch.cat([group.cells(grid_hw).flatten(1) for group in groups], 1)
    num_cells = grid_hw[0] * grid_hw[1]
    # Sorting the cell indices with the covered ones pushed behind leaves the single cells in raster order,
    # without a data-dependent shape.
    order = torch.arange(num_cells, device=covered.device).expand(covered.shape[0], -1)
    return ascending(order.scatter(1, covered, covered + num_cells))[:, : num_cells - covered.shape[1]]
