"""TokenLayout: which token covers which cells of the patch grid. Nothing else keeps that account."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenGroup:
    """Tokens that each cover a square window of `window` x `window` cells.

    `origins` (B, n) int64 is the raster index, in the full grid, of each window's top-left cell.
    """

    window: int
    origins: Tensor

    def cells(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return (B, n, window**2) int64: the raster indices of the cells of each window."""
        steps = torch.arange(self.window, device=self.origins.device)
        offsets = (steps[:, None] * grid_hw[1] + steps).flatten()
        return self.origins[:, :, None] + offsets


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of a batch: groups of windows, group after group; together they cover each grid cell once.

    `grid_hw` is the patch grid (rows, columns). Token i of group g comes after all tokens of earlier groups.
    """

    grid_hw: tuple[int, int]
    groups: tuple[TokenGroup, ...]

    @classmethod
    def identity(cls, batch: int, grid_hw: tuple[int, int], device: torch.device) -> 'TokenLayout':
        """Return the layout of the dense model: one token per cell, in raster order."""
        cells = torch.arange(grid_hw[0] * grid_hw[1], device=device).expand(batch, -1)
        return cls(grid_hw, (TokenGroup(1, cells),))

    @property
    def num_cells(self) -> int:
        """Number of grid cells."""
        return self.grid_hw[0] * self.grid_hw[1]

    @property
    def num_tokens(self) -> int:
        """Number of tokens per image."""
        return sum(int(group.origins.shape[1]) for group in self.groups)

    @property
    def is_identity(self) -> bool:
        """Whether every cell has a token of its own, so that nothing needs to be moved."""
        return len(self.groups) == 1 and self.groups[0].window == 1

    def cell_to_token(self) -> Tensor:
        """Return (B, cells) int64: the token that covers each cell."""
        return self._cell_to_token

    @cached_property
    def _cell_to_token(self) -> Tensor:
        # asked for once for the scores and once for the token report of the same frame
        batch = self.groups[0].origins.shape[0]
        device = self.groups[0].origins.device
        table = torch.zeros(batch, self.num_cells, dtype=torch.int64, device=device)
        first = 0
        for group in self.groups:
            count = group.origins.shape[1]
            cells = group.cells(self.grid_hw)  # (B, n, w*w)
            tokens = torch.arange(first, first + count, device=device)[None, :, None].expand_as(cells)
            table = table.scatter(1, cells.flatten(1), tokens.flatten(1))
            first += count
        return table

    def window_sizes(self) -> Tensor:
        """Return (B, tokens) int64: the side of each token's window."""
        return torch.cat([torch.full_like(group.origins, group.window) for group in self.groups], 1)

    def gather_pooled(self, pooled: dict[int, Tensor]) -> Tensor:
        """Pick each token's vector from maps pooled to its window size.

        `pooled[w]` is (B, C, gh // w, gw // w), one cell per w x w window. Returns (B, tokens, C).
        """
        parts = []
        for group in self.groups:
            vectors = pooled[group.window].flatten(2).transpose(1, 2)  # (B, windows, C)
            if not self.is_identity:
                vectors = gather_tokens(vectors, self._window_index(group))
            parts.append(vectors)
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def merge_mean(self, cells: Tensor) -> Tensor:
        """Average the cells of each token's window: (B, cells, C) -> (B, tokens, C)."""
        if self.is_identity:
            return cells
        parts = []
        for group in self.groups:
            index = group.cells(self.grid_hw)  # (B, n, w*w)
            values = gather_tokens(cells, index.flatten(1))  # (B, n*w*w, C)
            parts.append(values.unflatten(1, index.shape[1:]).mean(2))
        return torch.cat(parts, 1)

    def unmerge(self, tokens: Tensor) -> Tensor:
        """Copy each token to all cells that it covers: (B, tokens, C) -> (B, cells, C)."""
        return tokens if self.is_identity else gather_tokens(tokens, self.cell_to_token())

    def _window_index(self, group: TokenGroup) -> Tensor:
        rows = torch.div(group.origins, self.grid_hw[1], rounding_mode='floor')
        columns = group.origins - rows * self.grid_hw[1]
        window = group.window
        rows, columns = (torch.div(axis, window, rounding_mode='floor') for axis in (rows, columns))
        return rows * (self.grid_hw[1] // window) + columns


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens (B, N, C) by index (B, M) int64 -> (B, M, C)."""
    # Whole rows at a time: a gather with an index per element takes eight times as long.
    batch = int(tokens.shape[0])
    if batch == 1:
        return tokens[0].index_select(0, index[0])[None]
    rows = index + torch.arange(batch, device=index.device)[:, None] * tokens.shape[1]
    return tokens.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, (batch, index.shape[1]))


def ascending(index: Tensor) -> Tensor:
    """Sort indices (B, M) int64 below 2**24 along the last axis, by way of float32: TensorRT sorts no integers."""
    return index.float().sort(1).values.to(index.dtype)
