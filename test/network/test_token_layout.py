"""TokenLayout: what a network does with the indices of a choice of windows."""

import numpy as np
import pytest
import torch

from hybrid_seg_ros.network.token_layout import TokenLayout, gather_tokens, window_means
from hybrid_seg_ros.network.token_merging import choose_windows

CPU = torch.device('cpu')
CASES = {
    'identity': ((4, 6), {2: 0}), '2x2': ((4, 6), {2: 3}), 'odd grid': ((5, 7), {2: 4}),
    'windows of 1, 2 and 4': ((9, 13), {4: 3, 2: 7}), 'only windows of 4': ((8, 12), {4: 6}),
}  # fmt: skip


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    """A layout of two images, and the cells of each of their tokens."""
    grid_hw, counts = request.param
    generator = np.random.default_rng(0)
    scores = {w: generator.standard_normal((2, grid_hw[0] // w, grid_hw[1] // w)) for w in counts}
    choice = choose_windows(scores, counts, grid_hw)
    cells = [[np.flatnonzero(row == token) for token in range(choice.source.shape[1])] for row in choice.token_of_cell]
    return TokenLayout.of(choice, CPU), cells


def test_window_sizes(case):
    layout, cells = case
    for image, sides in enumerate(layout.window_sizes().tolist()):
        assert [side**2 for side in sides] == [len(covered) for covered in cells[image]]


def test_pick_takes_the_mean_of_a_tokens_cells_out_of_the_table(case):
    layout, cells = case
    values = torch.randn(2, layout.num_cells, 5, generator=torch.Generator().manual_seed(0))
    picked = layout.pick([window_means(values, layout.grid_hw, window) for window in layout.windows])
    assert picked.shape == (2, layout.num_tokens, 5)
    for image in range(2):
        for token, covered in enumerate(cells[image]):
            torch.testing.assert_close(picked[image, token], values[image, covered].mean(0))


def test_the_table_is_that_of_pooled_pixels(case):
    """Rows of the position embedding stand beside rows embedded from an image that was averaged as a whole."""
    layout, _ = case
    image = torch.randn(2, 5, *layout.grid_hw)
    for window in layout.windows:
        pooled = torch.nn.functional.avg_pool2d(image, window).flatten(2).transpose(1, 2)
        torch.testing.assert_close(window_means(image.flatten(2).transpose(1, 2), layout.grid_hw, window), pooled)


def test_unmerge_copies_a_token_to_its_cells(case):
    layout, cells = case
    tokens = torch.randn(2, layout.num_tokens, 3)
    back = layout.unmerge(tokens)
    assert back.shape == (2, layout.num_cells, 3)
    for image in range(2):
        for token, covered in enumerate(cells[image]):
            assert torch.equal(back[image, covered], tokens[image, token].expand(len(covered), -1))


def test_identity_moves_nothing():
    layout = TokenLayout.identity(2, (4, 6), CPU)
    cells = torch.randn(2, 24, 3)
    assert layout.is_identity and layout.num_tokens == layout.num_cells == 24
    assert layout.pick([cells]) is cells and layout.unmerge(cells) is cells
    assert layout.window_sizes().unique().tolist() == [1]


def test_gather_tokens():
    tokens = torch.arange(24.0).view(2, 4, 3)
    index = torch.tensor([[3, 0], [1, 1]])
    assert torch.equal(gather_tokens(tokens, index), torch.stack([tokens[0, [3, 0]], tokens[1, [1, 1]]]))
