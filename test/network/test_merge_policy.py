"""The policy networks: shapes, what each one looks at, and that sharing a trunk changes nothing."""

import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.model_spec import POLICIES, Variant
from hybrid_seg_ros.network.efficientnet_lite import STRIDE_16_STAGE, EfficientNetLite0
from hybrid_seg_ros.network.merge_policy import PolicyNetwork, window_scores
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.imagenet_trunk import load_imagenet_trunk

KINDS = [name for name in POLICIES if name != 'none']
SIZES = {'96x128': (96, 128), 'odd grid 112x80': (112, 80)}


def build(policy, stem='patch'):
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec(policy=policy, stem=stem)).eval()
    load_imagenet_trunk(model)
    return model


@pytest.mark.parametrize('size_hw', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('stem', ['patch', 'shared_trunk', 'deep_trunk'])
@pytest.mark.parametrize('policy', KINDS)
@torch.no_grad()
def test_a_score_for_each_whole_window(policy, stem, size_hw):
    model = build(policy, stem)
    images = torch.randn(3, 3, *size_hw)
    logits = model.window_logits(images)
    grid_hw = (size_hw[0] // 16, size_hw[1] // 16)
    scores = window_scores(logits, grid_hw)
    assert logits.shape[:2] == (3, 2) and scores.shape == (3, grid_hw[0] // 2, grid_hw[1] // 2)
    assert scores.isfinite().all() and scores.std() > 0
    for index in range(3):
        alone = model.window_logits(images[index : index + 1])[0]
        torch.testing.assert_close(alone, logits[index], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('stem', ['patch', 'shared_trunk'])
@pytest.mark.parametrize('policy', [name for name in KINDS if name != 'efficientnet_lite0'])  # that one: conformance
@torch.no_grad()
def test_a_window_is_judged_by_its_own_pixels(policy, stem):
    """Noise in one window moves its score most; a score that came from another place would merge the wrong patches."""
    model = build(policy, stem)
    flat = torch.zeros(1, 3, 256, 320)
    scores = window_scores(model.window_logits(flat), (16, 20))
    for row, column in ((3, 7), (5, 2)):
        image = flat.clone()
        image[:, :, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = torch.randn(1, 3, 32, 32) * 3
        change = (window_scores(model.window_logits(image), (16, 20)) - scores)[0].abs()
        found = divmod(int(change.argmax()), change.shape[1])
        assert max(abs(found[0] - row), abs(found[1] - column)) <= 1, (found, (row, column))


@pytest.mark.parametrize('policy', KINDS)
def test_what_forward_merges_by_is_what_window_logits_says(policy):
    model, images = build(policy, 'shared_trunk'), torch.randn(2, 3, 100, 77)
    output = model(images, Variant(merges=True), model.spec.budget, supervise=True)
    torch.testing.assert_close(output.policy_logits, model.window_logits(images))
    output.policy_logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.policy.parameters())


@torch.no_grad()
def test_a_policy_network_that_continues_the_trunk_is_the_whole_one():
    torch.manual_seed(0)
    whole = PolicyNetwork().eval()
    trunk = EfficientNetLite0(last_stage=STRIDE_16_STAGE).eval()
    rest = PolicyNetwork(continues_trunk=True).eval()
    state = whole.state_dict()
    trunk.load_state_dict({key: state[f'backbone.{key}'] for key in trunk.state_dict()})
    rest.load_state_dict({key: state[key] for key in rest.state_dict()})
    image = torch.randn(2, 3, 96, 128)
    torch.testing.assert_close(rest(image, trunk.pyramid(image)), whole(image))
    assert len(trunk.state_dict()) + len(rest.backbone.state_dict()) == len(whole.backbone.state_dict())


@torch.no_grad()
def test_pyramid():
    trunk = EfficientNetLite0(last_stage=STRIDE_16_STAGE).eval()
    image = torch.randn(2, 3, 96, 80)
    features = trunk.pyramid(image)
    shapes = [tuple(part.shape) for part in (features.stride_4, features.stride_8, features.stride_16)]
    assert shapes == [(2, 24, 24, 20), (2, 40, 12, 10), (2, 112, 6, 5)]
    assert torch.equal(features.stride_16, trunk(image)) and features.stride_32 is None
    assert EfficientNetLite0().pyramid(image).stride_32.shape == (2, 320, 3, 3)


def test_freezing_the_first_stages():
    trunk = EfficientNetLite0(last_stage=STRIDE_16_STAGE)
    trunk.freeze(0)
    assert all(parameter.requires_grad for parameter in trunk.parameters())
    trunk.freeze(2)
    frozen = {name for name, parameter in trunk.named_parameters() if not parameter.requires_grad}
    expected = ('conv_stem', 'bn1', 'blocks.0', 'blocks.1')
    assert frozen == {name for name, _ in trunk.named_parameters() if name.startswith(expected)}
