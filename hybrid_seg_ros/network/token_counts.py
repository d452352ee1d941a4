"""How many tokens a budget leaves, in plain numbers: known without PyTorch, before a graph is made or run."""

from __future__ import annotations

from hybrid_seg_ros.model_spec import Keep, Windows


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
