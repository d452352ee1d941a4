"""Which windows merge, against a naive choice per image."""

import pytest
import torch

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
        layout = choose_windows(scores, count, grid_hw)
        assert layout.num_tokens == grid_hw[0] * grid_hw[1] - 3 * count
        origins = {group.window: group.origins for group in layout.groups}
        for image in range(3):
            merged, singles = naive(scores[image], count, grid_hw)
            assert (origins[2][image].tolist() if count else []) == merged
            assert (origins[1][image].tolist() if 1 in origins else []) == singles


@pytest.mark.parametrize('grid_hw', GRIDS)
def test_count_0_is_the_identity(grid_hw):
    layout = choose_windows(random_scores(grid_hw), 0, grid_hw)
    assert layout.is_identity and layout.num_tokens == grid_hw[0] * grid_hw[1]


@pytest.mark.parametrize(('grid_hw', 'groups'), [((4, 6), [2]), ((5, 6), [1, 2]), ((4, 7), [1, 2])])
def test_all_windows_merge(grid_hw, groups):
    layout = choose_windows(random_scores(grid_hw), (grid_hw[0] // 2) * (grid_hw[1] // 2), grid_hw)
    assert [group.window for group in layout.groups] == groups
    cells_per_token = torch.bincount(layout.cell_to_token()[0]).unique().tolist()
    assert cells_per_token == [window**2 for window in groups]


def test_ties_choose_the_stated_number_of_windows_once_each():
    layout = choose_windows(torch.zeros(2, 3, 4), 5, (6, 8))
    merged = layout.groups[1].origins
    assert merged.shape == (2, 5)
    assert all(len(set(row)) == 5 and row == sorted(row) for row in merged.tolist())


def test_images_choose_for_themselves():
    scores = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert choose_windows(scores, 1, (2, 4)).groups[1].origins.tolist() == [[0], [2]]


@pytest.mark.parametrize('shape', [(2, 2), (1, 3, 2), (1, 1, 2, 3), (1, 4, 6)])
def test_scores_of_another_shape(shape):
    with pytest.raises(ValueError, match=r'scores: expected \(B, 2, 3\), got'):
        choose_windows(torch.zeros(shape), 1, (4, 6))
