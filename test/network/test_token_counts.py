"""Token counts in plain numbers."""

import subprocess
import sys

import pytest

from hybrid_seg_ros.network.token_counts import count_merged_windows, kept_count


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
    assert count_merged_windows(grid_hw, merged_windows) == expected


def test_more_windows_than_there_are():
    with pytest.raises(ValueError, match=r'expected at most 6 for a \(5, 7\) grid, got 7'):
        count_merged_windows((5, 7), 7)


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
