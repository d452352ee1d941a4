"""Which token covers which cells: any window sizes, against naive loops."""

import pytest
import torch

from hybrid_seg_ros.network.token_layout import TokenGroup, TokenLayout, gather_tokens

GRID = (8, 12)
BIG = [[(0, 0), (4, 8)], [(4, 0), (0, 4)]]  # top-left cells of 4x4 windows, per image
SMALL = [[(0, 4), (2, 6), (4, 4)], [(0, 0), (2, 10), (6, 4)]]  # and of 2x2 windows


def raster(corners, width):
    return torch.tensor([[row * width + column for row, column in image] for image in corners])


def mixed_layout():
    """Two images, each with windows of 1, 2 and 4 cells a side."""
    covered = [set() for _ in BIG]
    for window, corners in ((4, BIG), (2, SMALL)):
        for image, places in enumerate(corners):
            for top, left in places:
                covered[image] |= {(top + i) * GRID[1] + left + j for i in range(window) for j in range(window)}
    singles = [[cell for cell in range(GRID[0] * GRID[1]) if cell not in done] for done in covered]
    return TokenLayout(
        GRID,
        (
            TokenGroup(1, torch.tensor(singles)),
            TokenGroup(2, raster(SMALL, GRID[1])),
            TokenGroup(4, raster(BIG, GRID[1])),
        ),
    )


LAYOUTS = {
    'identity': TokenLayout.identity(2, GRID, torch.device('cpu')),
    'windows of 1, 2 and 4': mixed_layout(),
    'only windows of 4': TokenLayout(GRID, (TokenGroup(4, torch.tensor([[0, 4, 8, 48, 52, 56]]).expand(2, -1)),)),
}


def windows(layout, image):
    """List each token's cells by a plain loop."""
    found = []
    for group in layout.groups:
        for origin in group.origins[image].tolist():
            top, left = divmod(origin, layout.grid_hw[1])
            found.append(
                [(top + i) * layout.grid_hw[1] + left + j for i in range(group.window) for j in range(group.window)]
            )
    return found


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request):
    return request.param


def test_each_cell_is_covered_once(layout):
    table = layout.cell_to_token()
    assert table.shape == (2, GRID[0] * GRID[1])
    for image in range(2):
        naive = windows(layout, image)
        assert len(naive) == layout.num_tokens
        assert sorted(cell for cells in naive for cell in cells) == list(range(layout.num_cells))
        for token, cells in enumerate(naive):
            assert table[image, cells].tolist() == [token] * len(cells)


def test_window_sizes(layout):
    sizes = layout.window_sizes()
    for image in range(2):
        assert [side**2 for side in sizes[image].tolist()] == [len(cells) for cells in windows(layout, image)]


def test_merge_mean_and_unmerge_against_a_loop(layout):
    torch.manual_seed(0)
    cells = torch.randn(2, layout.num_cells, 5)
    merged, back = layout.merge_mean(cells), layout.unmerge(layout.merge_mean(cells))
    for image in range(2):
        for token, covered in enumerate(windows(layout, image)):
            mean = cells[image, covered].mean(0)
            torch.testing.assert_close(merged[image, token], mean)
            torch.testing.assert_close(back[image, covered], mean.expand(len(covered), -1))


def test_tokens_survive_unmerge_and_merge(layout):
    torch.manual_seed(0)
    tokens = torch.randn(2, layout.num_tokens, 3)
    torch.testing.assert_close(layout.merge_mean(layout.unmerge(tokens)), tokens)


def test_gather_pooled_is_merge_mean_of_the_cells(layout):
    torch.manual_seed(0)
    image = torch.randn(2, 5, *GRID)
    pooled = {group.window: torch.nn.functional.avg_pool2d(image, group.window) for group in layout.groups}
    torch.testing.assert_close(layout.gather_pooled(pooled), layout.merge_mean(image.flatten(2).transpose(1, 2)))


@pytest.mark.parametrize('grid_hw', [(5, 7), (4, 7), (7, 4)])
def test_odd_grids(grid_hw):
    """Maps pooled to windows are gh // w wide; a last odd row and column have single tokens."""
    width = grid_hw[1]
    corners = [[(0, 0), (2, 2)], [(2, 0), (0, 2)]]
    taken = [{(r + i) * width + c + j for r, c in image for i in (0, 1) for j in (0, 1)} for image in corners]
    singles = torch.tensor([[cell for cell in range(grid_hw[0] * width) if cell not in done] for done in taken])
    layout = TokenLayout(grid_hw, (TokenGroup(1, singles), TokenGroup(2, raster(corners, width))))
    image = torch.arange(2.0 * grid_hw[0] * width).view(2, 1, *grid_hw)
    pooled = {1: image, 2: torch.nn.functional.avg_pool2d(image, 2)}
    torch.testing.assert_close(layout.gather_pooled(pooled), layout.merge_mean(image.flatten(2).transpose(1, 2)))


def test_identity_moves_nothing():
    layout = LAYOUTS['identity']
    cells = torch.randn(2, layout.num_cells, 3)
    assert layout.is_identity and layout.num_tokens == layout.num_cells
    assert layout.merge_mean(cells) is cells
    assert layout.unmerge(cells) is cells
    assert torch.equal(layout.cell_to_token(), torch.arange(layout.num_cells).expand(2, -1))


def test_gather_tokens():
    tokens = torch.arange(24.0).view(2, 4, 3)
    index = torch.tensor([[3, 0], [1, 1]])
    assert torch.equal(gather_tokens(tokens, index), torch.stack([tokens[0, [3, 0]], tokens[1, [1, 1]]]))
