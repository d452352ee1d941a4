"""Which windows merge, against a naive choice per image."""

import pytest
import torch

from hybrid_seg_ros.network.token_counts import count_entering
from hybrid_seg_ros.network.token_merging import choose_windows

GRIDS = [(4, 6), (5, 7), (6, 4), (7, 8), (2, 2), (1, 5)]


def random_scores(grid_hw, batch=3, seed=0):
    return torch.randn(batch, grid_hw[0] // 2, grid_hw[1] // 2, generator=torch.Generator().manual_seed(seed))


def naive(scores, count, grid_hw):
    """Return for one image the origins of merged windows and of single cells, both in raster order."""
    columns = scores.shape[1]
    by_score = sorted(range(scores.numel()), key=lambda window: -scores.flatten()[window].item())[:count]
    merged = [(window // columns * 2) * grid_hw[1] + window % columns * 2 for window in sorted(by_score)]
    covered = {origin + step for origin in merged for step in (0, 1, grid_hw[1], grid_hw[1] + 1)}
    return merged, [cell for cell in range(grid_hw[0] * grid_hw[1]) if cell not in covered]


@pytest.mark.parametrize('grid_hw', GRIDS)
def test_against_a_loop_for_every_count(grid_hw):
    scores = random_scores(grid_hw)
    for count in range(scores[0].numel() + 1):
        layout = choose_windows({2: scores}, {2: count}, grid_hw)
        assert layout.num_tokens == grid_hw[0] * grid_hw[1] - 3 * count
        origins = {group.window: group.origins for group in layout.groups}
        for image in range(3):
            merged, singles = naive(scores[image], count, grid_hw)
            assert (origins[2][image].tolist() if count else []) == merged
            assert (origins[1][image].tolist() if 1 in origins else []) == singles


@pytest.mark.parametrize('grid_hw', GRIDS)
def test_count_0_is_the_identity(grid_hw):
    layout = choose_windows({2: random_scores(grid_hw)}, {2: 0}, grid_hw)
    assert layout.is_identity and layout.num_tokens == grid_hw[0] * grid_hw[1]


@pytest.mark.parametrize(('grid_hw', 'groups'), [((4, 6), [2]), ((5, 6), [1, 2]), ((4, 7), [1, 2])])
def test_all_windows_merge(grid_hw, groups):
    layout = choose_windows({2: random_scores(grid_hw)}, {2: (grid_hw[0] // 2) * (grid_hw[1] // 2)}, grid_hw)
    assert [group.window for group in layout.groups] == groups
    cells_per_token = torch.bincount(layout.cell_to_token()[0]).unique().tolist()
    assert cells_per_token == [window**2 for window in groups]


def test_ties_choose_the_stated_number_of_windows_once_each():
    layout = choose_windows({2: torch.zeros(2, 3, 4)}, {2: 5}, (6, 8))
    merged = layout.groups[1].origins
    assert merged.shape == (2, 5)
    assert all(len(set(row)) == 5 and row == sorted(row) for row in merged.tolist())


def test_images_choose_for_themselves():
    scores = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert choose_windows({2: scores}, {2: 1}, (2, 4)).groups[1].origins.tolist() == [[0], [2]]


@pytest.mark.parametrize('shape', [(2, 2), (1, 3, 2), (1, 1, 2, 3), (1, 4, 6)])
def test_scores_of_another_shape(shape):
    with pytest.raises(ValueError, match=r'scores\[2\]: expected \(B, 2, 3\), got'):
        choose_windows({2: torch.zeros(shape)}, {2: 1}, (4, 6))


def scores_of(sizes, grid_hw, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {w: torch.randn(batch, grid_hw[0] // w, grid_hw[1] // w, generator=generator) for w in sizes}


def naive_several(scores, counts, grid_hw, image):
    """Return per window size the origins that merge, and those of single cells, all in raster order: large first."""
    covered, found = set(), {}
    for window in sorted(counts, reverse=True):
        columns, places = grid_hw[1] // window, []
        for index in scores[window][image].flatten().argsort(descending=True).tolist():
            origin = index // columns * window * grid_hw[1] + index % columns * window
            cells = {origin + i * grid_hw[1] + j for i in range(window) for j in range(window)}
            if len(places) < counts[window] and not cells & covered:
                places.append(origin)
                covered |= cells
        found[window] = sorted(places)
    found[1] = [cell for cell in range(grid_hw[0] * grid_hw[1]) if cell not in covered]
    return found


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
    layout = choose_windows(scores, counts, grid_hw)
    assert layout.num_tokens == grid_hw[0] * grid_hw[1] - sum(n * (w**2 - 1) for w, n in counts.items())
    assert layout.num_tokens == count_entering(grid_hw, tuple(counts.items()))
    assert [group.window for group in layout.groups] == sorted(group.window for group in layout.groups)
    origins = {group.window: group.origins for group in layout.groups}
    for image in range(2):
        for window, expected in naive_several(scores, counts, grid_hw, image).items():
            assert (origins[window][image].tolist() if window in origins else []) == expected, window
        cells = torch.cat([group.cells(grid_hw)[image].flatten() for group in layout.groups])
        assert cells.sort().values.tolist() == list(range(grid_hw[0] * grid_hw[1]))


@pytest.mark.parametrize(('grid_hw', 'counts'), SEVERAL)
def test_tokens_of_several_sizes_survive_unmerge_and_merge(grid_hw, counts):
    layout = choose_windows(scores_of(counts, grid_hw), counts, grid_hw)
    tokens = torch.randn(2, layout.num_tokens, 3)
    torch.testing.assert_close(layout.merge_mean(layout.unmerge(tokens)), tokens)
    image = torch.randn(2, 5, *grid_hw)
    pooled = {group.window: torch.nn.functional.avg_pool2d(image, group.window) for group in layout.groups}
    torch.testing.assert_close(layout.gather_pooled(pooled), layout.merge_mean(image.flatten(2).transpose(1, 2)))


@pytest.mark.parametrize('count', [0, 3, 12])
def test_none_of_a_larger_size_changes_nothing(count):
    scores = scores_of((2, 4), (6, 9))
    alone, beside = (choose_windows(scores, counts, (6, 9)) for counts in ({2: count}, {4: 0, 2: count}))
    assert [group.window for group in alone.groups] == [group.window for group in beside.groups]
    assert all(torch.equal(a.origins, b.origins) for a, b in zip(alone.groups, beside.groups))


def test_scores_of_a_size_that_is_missing():
    with pytest.raises(ValueError, match=r'expected those of 4x4 windows, got sizes \[2\]'):
        choose_windows(scores_of((2,), (8, 8)), {4: 1, 2: 1}, (8, 8))
