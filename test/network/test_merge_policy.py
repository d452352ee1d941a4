"""The policy networks: shapes, and what each one looks at, for each size of window."""

import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.model_spec import POLICIES, TokenBudget, Variant
from hybrid_seg_ros.network.merge_policy import window_scores
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.initial_model import load_imagenet_trunk

KINDS = [name for name in POLICIES if name != 'none']
SIZES = {'96x128': (96, 128), 'odd grid 112x80': (112, 80), '9x13 patches': (144, 208), 'a grid of 3x4': (48, 64)}
WINDOWS = (2, 4, 8)


def build(policy):
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec(policy=policy, window_sizes=WINDOWS)).eval()
    if policy != 'patch_mlp':
        load_imagenet_trunk(model.policy.backbone)
    return model


@pytest.mark.parametrize('size_hw', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('policy', KINDS)
@torch.no_grad()
def test_a_score_for_each_whole_window(policy, size_hw):
    """Also where the grid is smaller than a window: then there is none of its size."""
    model, grid_hw = build(policy), (size_hw[0] // 16, size_hw[1] // 16)
    images = torch.randn(3, 3, *size_hw)
    logits = model.window_logits(images)
    scores = window_scores(logits, grid_hw)
    assert list(scores) == [2, 4, 8]
    for window, of_size in scores.items():
        assert logits[window].shape[:2] == (3, 2)
        assert of_size.shape == (3, grid_hw[0] // window, grid_hw[1] // window)
        assert of_size.isfinite().all() and (of_size.numel() < 9 or of_size.std() > 0)
    for index in range(3):
        alone = model.window_logits(images[index : index + 1])
        for window in WINDOWS:
            torch.testing.assert_close(alone[window][0], logits[window][index], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('window', WINDOWS)
@pytest.mark.parametrize('policy', [name for name in KINDS if name != 'efficientnet_lite0'])  # that one: conformance
@torch.no_grad()
def test_a_window_is_judged_by_its_own_pixels(policy, window):
    """Noise in one window moves its score most; a score that came from another place would merge the wrong patches."""
    model = build(policy)
    side, grid_hw = 16 * window, (8 * window, 10 * window)
    flat = torch.zeros(1, 3, 8 * side, 10 * side)
    scores = window_scores(model.window_logits(flat), grid_hw)[window]
    for row, column in ((3, 7), (5, 2)):
        image = flat.clone()
        image[:, :, side * row :, side * column :][:, :, :side, :side] = torch.randn(1, 3, side, side) * 3
        change = (window_scores(model.window_logits(image), grid_hw)[window] - scores)[0].abs()
        found = divmod(int(change.argmax()), change.shape[1])
        assert max(abs(found[0] - row), abs(found[1] - column)) <= 1, (found, (row, column))


@pytest.mark.parametrize('policy', KINDS)
def test_what_forward_merges_by_is_what_window_logits_says(policy):
    model, images = build(policy), torch.randn(2, 3, 150, 140)
    budget = TokenBudget(merged_windows={8: 1, 4: 0, 2: 3})
    output = model(images, Variant(merges=True), budget, supervise=True)
    expected = model.window_logits(images)
    for window in WINDOWS:
        torch.testing.assert_close(output.policy_logits[window], expected[window])
    sum(logits.sum() for logits in output.policy_logits.values()).backward()
    assert all(parameter.grad is not None for parameter in model.policy.parameters())


@torch.no_grad()
def test_larger_windows_leave_the_scores_of_small_ones_as_they_are():
    several = build('half_size')
    single = HybridSegmenter(tiny_spec(policy='half_size')).eval()
    weights = {name: value for name, value in several.state_dict().items() if not name.startswith('policy.larger.')}
    single.load_state_dict(weights)
    image = torch.randn(2, 3, 96, 128)
    assert torch.equal(single.window_logits(image)[2], several.window_logits(image)[2])
