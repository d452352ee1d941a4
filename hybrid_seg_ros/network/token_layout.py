"""TokenLayout: which token covers which cells of the patch grid, as the index tensors that a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_seg_ros.network.token_merging import WindowChoice


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of a batch; together they cover each cell of the patch grid `grid_hw` once.

    Tokens are rows of a table that lists the windows of each side in `windows` (ascending, 1 first, which is the single
    cells) one after the other, each side's in raster order: `source` (B, N) is the row of each token, `token_of_cell`
    (B, cells) the token that covers each cell. Both are integers.
    """

    grid_hw: tuple[int, int]
    windows: tuple[int, ...]
    source: Tensor
    token_of_cell: Tensor

    @classmethod
    def identity(cls, batch: int, grid_hw: tuple[int, int], device: torch.device) -> 'TokenLayout':
        """Return the layout of the dense model: one token per cell, in raster order."""
        cells = torch.arange(grid_hw[0] * grid_hw[1], device=device).expand(batch, -1)
        return cls(grid_hw, (1,), cells, cells)

    @classmethod
    def of(cls, choice: WindowChoice, device: torch.device) -> 'TokenLayout':
        """Return a choice of windows as tensors."""
        source, token_of_cell = (torch.from_numpy(each).to(device) for each in (choice.source, choice.token_of_cell))
        return cls(choice.grid_hw, choice.windows, source, token_of_cell)

    @property
    def num_cells(self) -> int:
        """Number of grid cells."""
        return self.grid_hw[0] * self.grid_hw[1]

    @property
    def num_tokens(self) -> int:
        """Number of tokens per image."""
        return int(self.source.shape[1])

    @property
    def is_identity(self) -> bool:
        """Whether every cell has a token of its own, so that nothing needs to be moved."""
        return self.windows == (1,)

    def window_sizes(self) -> Tensor:
        """Return (B, tokens) int64: the side of each token's window."""
        sizes, first = torch.ones_like(self.source, dtype=torch.int64), 0
        for window in self.windows:
            sizes = torch.where(self.source >= first, window, sizes)
            first += (self.grid_hw[0] // window) * (self.grid_hw[1] // window)
        return sizes

    def pick(self, rows: Sequence[Tensor]) -> Tensor:
        """Take each token's row out of the table, given as (B, windows, C) per window size -> (B, tokens, C)."""
        return rows[0] if self.is_identity else gather_tokens(torch.cat(list(rows), 1), self.source)

    def unmerge(self, tokens: Tensor) -> Tensor:
        """Copy each token to all cells that it covers: (B, tokens, C) -> (B, cells, C)."""
        return tokens if self.is_identity else gather_tokens(tokens, self.token_of_cell)


def window_means(cells: Tensor, grid_hw: tuple[int, int], window: int) -> Tensor:
    """Average the cells of every whole window of `window` x `window`: (B, cells, C) -> (B, windows, C)."""
    if window == 1:
        return cells
    rows, columns = grid_hw[0] // window, grid_hw[1] // window
    whole = cells.unflatten(1, grid_hw)[:, : rows * window, : columns * window]
    parts = whole.unflatten(2, (columns, window)).unflatten(1, (rows, window))  # (B, rows, w, columns, w, C)
    return parts.transpose(2, 3).flatten(3, 4).flatten(1, 2).mean(2)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens (B, N, C) by index (B, M) -> (B, M, C)."""
    # Whole rows at a time: a gather with an index per element takes eight times as long.
    batch = int(tokens.shape[0])
    if batch == 1:
        return tokens[0].index_select(0, index[0])[None]
    rows = index + torch.arange(batch, device=index.device, dtype=index.dtype)[:, None] * tokens.shape[1]
    return tokens.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, (batch, index.shape[1]))
