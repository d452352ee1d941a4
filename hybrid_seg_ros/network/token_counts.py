"""How many tokens a budget leaves, in plain numbers: known without PyTorch, before a graph is made or run."""

from __future__ import annotations

from hybrid_seg_ros.model_spec import Keep

WINDOW = 2
"""Side of a window whose patches share a token, in patches."""


def count_merged_windows(grid_hw: tuple[int, int], merged_windows: Keep, window: int = WINDOW) -> int:
    """Return how many windows of the grid share a token; a float is a share of all windows, an int a count."""
    available = (grid_hw[0] // window) * (grid_hw[1] // window)
    count = merged_windows if isinstance(merged_windows, int) else round(merged_windows * available)
    if count > available:
        raise ValueError(f'merged_windows: expected at most {available} for a {grid_hw} grid, got {count}')
    return count


def kept_count(num_tokens: int, keep: Keep) -> int:
    """Turn a count or fraction into a count in 1 .. num_tokens."""
    count = keep if isinstance(keep, int) else round(keep * num_tokens)
    return max(1, min(num_tokens, count))
