"""Token merging without PyTorch: how many tokens a budget leaves, which windows share one, and the indices for it.

Sources: CTS ("Content-aware Token Sharing", Lu et al., CVPR 2023), section 3, and section 1 of the paper that this
package is built on: of the 256 2x2 windows of a 32x32 grid, the 103 with the highest policy score share one token each.
STEP (arXiv 2509.14165): superpatches, windows of several sizes, large ones first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hybrid_seg_ros.model_spec import Keep, Windows

_LEAST = -1e30


@dataclass(frozen=True)
class WindowChoice:
    """The tokens of a batch, as `TokenLayout` has them: `source` (B, N), `token_of_cell` (B, cells), both int32."""

    grid_hw: tuple[int, int]
    windows: tuple[int, ...]
    source: np.ndarray
    token_of_cell: np.ndarray

    def window_size(self) -> np.ndarray:
        """Return (B, gh, gw) uint8: the side of the window that each cell shares a token with, 1 for a single one."""
        sides, _, _ = _table(self.grid_hw, self.windows)
        return sides[np.take_along_axis(self.source, self.token_of_cell, 1)].reshape(-1, *self.grid_hw)


def count_merged_windows(grid_hw: tuple[int, int], windows: Windows) -> dict[int, int]:
    """Return per window size, largest first, how many windows of the grid share a token.

    An int is a count: raises ValueError where larger windows leave fewer. A float is a share of all windows of its
    size, as far as larger ones leave them.
    """
    counts: dict[int, int] = {}
    for window, wanted in sorted(windows, reverse=True):
        total = (grid_hw[0] // window) * (grid_hw[1] // window)
        available = total - sum(count * (larger // window) ** 2 for larger, count in counts.items())
        count = wanted if isinstance(wanted, int) else min(round(wanted * total), available)
        if count > available:
            raise ValueError(
                f'merged_windows: expected at most {available} of {window}x{window} for a {grid_hw} grid, got {count}'
            )
        counts[window] = count
    return counts


def count_entering(grid_hw: tuple[int, int], windows: Windows) -> int:
    """Return how many tokens enter the encoder where `windows` share a token each."""
    merged = count_merged_windows(grid_hw, windows)
    return grid_hw[0] * grid_hw[1] - sum(count * (window**2 - 1) for window, count in merged.items())


def kept_count(num_tokens: int, keep: Keep) -> int:
    """Turn a count or fraction into a count in 1 .. num_tokens."""
    count = keep if isinstance(keep, int) else round(keep * num_tokens)
    return max(1, min(num_tokens, count))


def choose_windows(
    scores: Mapping[int, np.ndarray], counts: Mapping[int, int], grid_hw: tuple[int, int]
) -> WindowChoice:
    """Merge, per window size, the windows of highest score that no larger one covers; of equal ones the first.

    `scores[w]` (B, gh // w, gw // w): higher = rather share; `counts[w]` windows of w x w are merged. What is left over
    of the grid at the right and at the bottom is never merged. Tokens are in raster order, single ones first, then
    with growing windows. Shapes depend on `counts` alone.
    """
    sizes = sorted((window for window, count in counts.items() if count), reverse=True)
    for window in sizes:
        windows_hw = (grid_hw[0] // window, grid_hw[1] // window)
        if window not in scores:
            raise ValueError(f'scores: expected those of {window}x{window} windows, got sizes {sorted(scores)}')
        if scores[window].ndim != 3 or scores[window].shape[1:] != windows_hw:
            got = scores[window].shape
            raise ValueError(f'scores[{window}]: expected (B, {windows_hw[0]}, {windows_hw[1]}), got {got}')
    windows = (1, *reversed(sizes))
    _, cells_of, first_row = _table(grid_hw, windows)
    batch = len(next(iter(scores.values())))
    free = np.ones((batch, grid_hw[0] * grid_hw[1]), bool)  # cells that no window covers so far
    chosen = {}
    for window in sizes:
        whole = free[:, cells_of[window]].all(2)  # (B, windows)
        finite = np.nan_to_num(scores[window].reshape(batch, -1), nan=_LEAST, posinf=-_LEAST, neginf=_LEAST)
        flat = np.where(whole, finite, -np.inf)
        chosen[window] = np.sort(np.argsort(-flat, 1, kind='stable')[:, : counts[window]], 1)  # (B, count)
        np.put_along_axis(free, cells_of[window][chosen[window]].reshape(batch, -1), False, 1)
    chosen[1] = np.nonzero(free)[1].reshape(batch, -1)
    token_of_cell, first = np.empty(free.shape, np.int32), 0
    for window in windows:
        count = chosen[window].shape[1]
        tokens = np.repeat(np.arange(first, first + count, dtype=np.int32), window**2)
        np.put_along_axis(token_of_cell, cells_of[window][chosen[window]].reshape(batch, -1), tokens[None], 1)
        first += count
    source = np.concatenate([first_row[window] + chosen[window] for window in windows], 1).astype(np.int32)
    return WindowChoice(grid_hw, windows, source, token_of_cell)


def score_name(window: int) -> str:
    """Name the policy network's scores of the windows of a side, where it is a graph."""
    return f'scores_{window}'


@lru_cache(maxsize=16)
def _table(
    grid_hw: tuple[int, int], windows: tuple[int, ...]
) -> tuple[np.ndarray, dict[int, np.ndarray], dict[int, int]]:  # fmt: skip
    """Describe the table of all windows: the side of each row (uint8), and per side its windows' cells and first row.

    The cells are (windows, side**2), raster indices.
    """
    grid = np.arange(grid_hw[0] * grid_hw[1]).reshape(grid_hw)
    cells, first_row, sides = {}, {}, []
    for window in windows:
        rows, columns = grid_hw[0] // window, grid_hw[1] // window
        parts = grid[: rows * window, : columns * window].reshape(rows, window, columns, window)
        cells[window] = parts.swapaxes(1, 2).reshape(rows * columns, window**2)
        first_row[window] = len(sides)
        sides += [window] * (rows * columns)
    return np.array(sides, np.uint8), cells, first_row
