"""Token counts in plain numbers."""

import subprocess
import sys

import pytest

from hybrid_seg_ros.network.token_counts import count_entering, count_merged_windows, kept_count


@pytest.mark.parametrize(
    ('grid_hw', 'merged_windows', 'expected'),
    [
        ((32, 32), 103 / 256, 103),  # the paper's
        ((24, 30), 103 / 256, 72),
        ((5, 7), 1.0, 6),
        ((5, 7), 0.0, 0),
        ((5, 7), 0, 0),
        ((5, 7), 1, 1),
        ((5, 7), 6, 6),
        ((1, 7), 0.5, 0),
    ],
)
def test_count_merged_windows(grid_hw, merged_windows, expected):
    assert count_merged_windows(grid_hw, ((2, merged_windows),)) == {2: expected}
    assert count_entering(grid_hw, ((2, merged_windows),)) == grid_hw[0] * grid_hw[1] - 3 * expected


def test_more_windows_than_there_are():
    with pytest.raises(ValueError, match=r'expected at most 6 of 2x2 for a \(5, 7\) grid, got 7'):
        count_merged_windows((5, 7), ((2, 7),))


@pytest.mark.parametrize(
    ('grid_hw', 'windows', 'expected', 'entering'),
    [
        ((24, 32), ((2, 72), (4, 12)), {4: 12, 2: 72}, 768 - 180 - 216),
        ((9, 13), ((8, 1), (4, 1), (2, 4)), {8: 1, 4: 1, 2: 4}, 117 - 63 - 15 - 12),
        ((9, 14), ((4, 6), (2, 4)), {4: 6, 2: 4}, 126 - 90 - 12),
        ((24, 32), ((4, 0.25), (2, 0.5)), {4: 12, 2: 96}, 768 - 180 - 288),
        ((4, 12), ((4, 0.5), (2, 0.5)), {4: 2, 2: 4}, 48 - 30 - 12),  # rounding up leaves fewer small windows
        ((8, 8), ((8, 1.0), (2, 1.0)), {8: 1, 2: 0}, 1),
        ((6, 7), ((8, 1.0), (4, 1.0), (2, 1.0)), {8: 0, 4: 1, 2: 5}, 42 - 15 - 15),
    ],
)
def test_windows_of_several_sizes(grid_hw, windows, expected, entering):
    counts = count_merged_windows(grid_hw, windows)
    assert counts == expected and list(counts) == sorted(expected, reverse=True)
    assert count_entering(grid_hw, windows) == entering


@pytest.mark.parametrize(
    ('windows', 'message'),
    [
        (((4, 7), (2, 0)), 'at most 6 of 4x4 .* got 7'),
        (((4, 6), (2, 1)), 'at most 0 of 2x2 .* got 1'),
        (((8, 1), (4, 3)), 'at most 2 of 4x4 .* got 3'),
        (((8, 1), (4, 1), (2, 5)), 'at most 4 of 2x2 .* got 5'),
    ],
)
def test_more_windows_than_larger_ones_leave(windows, message):
    with pytest.raises(ValueError, match=message):
        count_merged_windows((9, 13), windows)


@pytest.mark.parametrize(
    ('count', 'keep', 'expected'),
    [(10, 1.0, 10), (10, 0.5, 5), (10, 0.01, 1), (10, 3, 3), (10, 99, 10), (715, 0.6, 429), (1, 0.5, 1)],
)
def test_kept_count(count, keep, expected):
    assert kept_count(count, keep) == expected


@pytest.mark.parametrize('module', ['network.token_counts', 'inference', 'inference.backends.graph_backend'])
def test_pytorch_is_not_loaded(module):
    code = f'import sys, hybrid_seg_ros.{module}; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], timeout=60).returncode == 0
