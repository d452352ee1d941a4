"""How many tokens each step of a training merges and keeps, where they are drawn."""

import numpy as np
import pytest
import torch
from tiny_model import tiny_spec
from tiny_training import tiny_config

from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.network.token_merging import count_entering, count_merged_windows
from hybrid_seg_ros.training.batches import Batch
from hybrid_seg_ros.training.train_segmenter import random_windows, step_budget

SPEC = tiny_spec(window_sizes=(2, 4, 8), budget=TokenBudget({4: 1, 2: 3}, threshold=0.3))


def batch(number, size_hw=(96, 144)):
    return Batch(number, ('a', 'b'), torch.zeros(2, *size_hw, 3), torch.zeros(2, *size_hw), {})


@pytest.mark.parametrize(('grid_hw', 'sizes', 'share'), [
    ((16, 24), (2,), 0.5), ((16, 24), (2, 4, 8), 0.3), ((16, 24), (2, 8), 0.1), ((16, 24), (2, 4), 1.0),
    ((9, 13), (2, 4, 8), 0.5), ((9, 13), (2, 8), 0.8), ((6, 9), (2, 4, 8), 0.3), ((6, 9), (2, 4), 0.1),
    ((4, 4), (2, 4, 8), 0.1), ((4, 4), (2,), 0.3), ((3, 3), (2, 4), 0.1), ((3, 3), (2, 8), 0.5),
])  # fmt: skip
def test_random_windows_fit_and_leave_about_the_share(grid_hw, sizes, share):
    """As few tokens as there can be where the windows of 2x2, of which three in four leave, are not enough."""
    cells = grid_hw[0] * grid_hw[1]
    for seed in range(10):
        counts = random_windows(np.random.default_rng(seed), grid_hw, sizes, share)
        assert set(counts) == set(sizes) and min(counts.values()) >= 0
        windows = tuple(counts.items())
        assert count_merged_windows(grid_hw, windows) == counts
        entering = count_entering(grid_hw, windows)
        wanted = share * cells
        if abs(entering - wanted) > 1.5:  # half a window
            covered = sum(count * window**2 for window, count in counts.items())
            assert entering > wanted and covered == 4 * (grid_hw[0] // 2) * (grid_hw[1] // 2)


def test_large_windows_are_among_the_random_ones():
    drawn = [random_windows(np.random.default_rng(seed), (24, 32), (2, 4, 8), 0.4) for seed in range(30)]
    for window in (2, 4, 8):
        assert len({counts[window] for counts in drawn}) > 2, window


def test_without_shares_the_budget_is_the_model_s_own():
    assert step_budget(batch(3), SPEC, tiny_config()) is SPEC.budget


def test_a_step_draws_by_the_number_of_its_batch():
    """So that a run that was resumed draws what the uninterrupted one does; other seeds and batches draw otherwise."""
    config = tiny_config(entering_share=(0.4, 0.9), keep_share=(0.2, 0.6), seed=1)
    budgets = [step_budget(batch(number), SPEC, config) for number in range(20)]
    assert budgets == [step_budget(batch(number), SPEC, config) for number in range(20)]
    assert len({budget.merged_windows for budget in budgets}) > 5 and len({budget.keep for budget in budgets}) == 20
    assert budgets != [step_budget(batch(n), SPEC, tiny_config(entering_share=(0.4, 0.9), seed=2)) for n in range(20)]
    for budget in budgets:
        assert 0.37 <= count_entering((6, 9), budget.windows) / 54 <= 0.93
        assert len(budget.keep) == 2 and all(0.2 <= keep <= 0.6 for keep in budget.keep)
        assert (budget.threshold, budget.keep_per_class) == (0.3, 5)


@pytest.mark.parametrize(('share', 'drawn'), [('entering_share', 'merged_windows'), ('keep_share', 'keep')])
def test_each_share_draws_its_own(share, drawn):
    budget = step_budget(batch(0), SPEC, tiny_config(**{share: (0.5, 0.6)}))
    others = {'merged_windows', 'keep'} - {drawn}
    assert getattr(budget, drawn) != getattr(SPEC.budget, drawn)
    assert all(getattr(budget, name) == getattr(SPEC.budget, name) for name in others)


def test_a_model_that_never_prunes_keeps_its_tokens():
    spec = tiny_spec(auxiliary_layers=(), variant=Variant())
    assert step_budget(batch(0), spec, tiny_config(keep_share=(0.5, 0.6))) == spec.budget
