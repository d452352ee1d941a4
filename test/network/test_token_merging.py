"""Token counts in plain numbers, and which windows merge, against a naive choice per image."""

import subprocess
import sys

import numpy as np
import pytest

from hybrid_seg_ros.network.token_merging import choose_windows, count_entering, count_merged_windows, kept_count

GRIDS = [(4, 6), (5, 7), (6, 4), (7, 8), (2, 2), (1, 5)]


def scores_of(sizes, grid_hw, batch=2, seed=0):
    generator = np.random.default_rng(seed)
    return {w: generator.standard_normal((batch, grid_hw[0] // w, grid_hw[1] // w)) for w in sizes}


def naive(scores, counts, grid_hw, image):
    """Return per window size the origins that merge, and those of single cells, all in raster order: large first."""
    covered, found = set(), {}
    for window in sorted(counts, reverse=True):
        columns, places = grid_hw[1] // window, []
        for index in np.argsort(-scores[window][image].ravel(), kind='stable').tolist():
            origin = index // columns * window * grid_hw[1] + index % columns * window
            cells = {origin + i * grid_hw[1] + j for i in range(window) for j in range(window)}
            if len(places) < counts[window] and not cells & covered:
                places.append(origin)
                covered |= cells
        found[window] = sorted(places)
    found[1] = [cell for cell in range(grid_hw[0] * grid_hw[1]) if cell not in covered]
    return found


def cells_of(origin, window, grid_hw):
    return [origin + i * grid_hw[1] + j for i in range(window) for j in range(window)]


def check(choice, scores, counts, grid_hw):
    """Hold a choice against the naive one: where each token comes from, and which token each cell gets."""
    windows = tuple(sorted({1, *(window for window, count in counts.items() if count)}))
    assert choice.windows == windows and choice.grid_hw == grid_hw
    assert choice.source.dtype == choice.token_of_cell.dtype == np.int32
    for image in range(len(choice.source)):
        found, first_row, source, token_of_cell = naive(scores, counts, grid_hw, image), 0, [], {}
        for window in windows:
            columns = grid_hw[1] // window
            for origin in found[window]:
                row, column = divmod(origin, grid_hw[1])
                token_of_cell.update(dict.fromkeys(cells_of(origin, window, grid_hw), len(source)))
                source.append(first_row + row // window * columns + column // window)
            first_row += (grid_hw[0] // window) * columns
        assert choice.source[image].tolist() == source
        assert choice.token_of_cell[image].tolist() == [token_of_cell[cell] for cell in sorted(token_of_cell)]
        sizes = np.ones(grid_hw[0] * grid_hw[1])
        for window in windows:
            for origin in found[window]:
                sizes[cells_of(origin, window, grid_hw)] = window
        assert choice.window_size()[image].ravel().tolist() == sizes.tolist()


@pytest.mark.parametrize('grid_hw', GRIDS)
def test_2x2_windows_against_a_loop_for_every_count(grid_hw):
    scores = scores_of((2,), grid_hw, batch=3)
    for count in range(scores[2][0].size + 1):
        check(choose_windows(scores, {2: count}, grid_hw), scores, {2: count}, grid_hw)


def test_of_equal_scores_the_first_are_chosen():
    scores = {2: np.zeros((2, 3, 4))}
    choice = choose_windows(scores, {2: 5}, (6, 8))
    check(choice, scores, {2: 5}, (6, 8))
    assert (choice.source[0, -5:] - 48).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('odd', [np.nan, -np.inf])
def test_scores_that_are_no_numbers_never_merge_a_cell_twice(odd):
    scores = scores_of((2, 4), (8, 8), batch=1)
    scores[2][:] = odd
    choice = choose_windows(scores, {4: 2, 2: 7}, (8, 8))
    assert sorted(np.bincount(choice.token_of_cell[0])) == [1] * 4 + [4] * 7 + [16] * 2


@pytest.mark.parametrize('shape', [(2, 2), (1, 3, 2), (1, 1, 2, 3), (1, 4, 6)])
def test_scores_of_another_shape(shape):
    with pytest.raises(ValueError, match=r'scores\[2\]: expected \(B, 2, 3\), got'):
        choose_windows({2: np.zeros(shape)}, {2: 1}, (4, 6))


SEVERAL = [
    ((8, 12), {4: 2, 2: 5}),
    ((9, 13), {4: 3, 2: 7}),
    ((9, 13), {8: 1, 4: 0, 2: 3}),
    ((9, 13), {8: 1, 4: 1, 2: 4}),
    ((9, 14), {4: 6, 2: 4}),  # all that there are: 4x4 windows cover 8x12 cells, a column of 2x2 ones is beside them
    ((16, 24), {8: 2, 4: 5, 2: 11}),
    ((16, 24), {8: 6}),
    ((17, 9), {8: 1, 2: 9}),  # no windows between
    ((12, 8), {2: 24, 4: 0}),
]


@pytest.mark.parametrize(('grid_hw', 'counts'), SEVERAL)
@pytest.mark.parametrize('seed', range(3))
def test_several_sizes_against_a_loop(grid_hw, counts, seed):
    """Each image for itself: the highest scores of the largest windows, then of what these leave; each cell once."""
    scores = scores_of(counts, grid_hw, seed=seed)
    choice = choose_windows(scores, counts, grid_hw)
    check(choice, scores, counts, grid_hw)
    assert choice.source.shape[1] == count_entering(grid_hw, tuple(counts.items()))


def test_scores_of_a_size_that_is_missing():
    with pytest.raises(ValueError, match=r'expected those of 4x4 windows, got sizes \[2\]'):
        choose_windows(scores_of((2,), (8, 8)), {4: 1, 2: 1}, (8, 8))


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


@pytest.mark.parametrize('module', ['network.token_merging', 'inference', 'inference.backends.graph_backend'])
def test_pytorch_is_not_loaded(module):
    code = f'import sys, hybrid_seg_ros.{module}; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], timeout=60).returncode == 0
