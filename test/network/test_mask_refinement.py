"""Refinement of the masks to stride 4."""

import pytest
import torch
import torch.nn.functional as F
from tiny_model import tiny_spec

from hybrid_seg_ros.model_spec import PAPER_VARIANTS, Backbone, ModelSpecError, TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter


def build(trained=False, **changes):
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec(refinement='image', **changes)).eval()
    if trained:
        torch.nn.init.normal_(model.refinement.output.weight)
    return model


@pytest.mark.parametrize('head', ['atm', 'light'])
@pytest.mark.parametrize('name', PAPER_VARIANTS)
@torch.no_grad()
def test_starts_as_bilinear_upsampling_of_the_mask_logits(name, head):
    model = build(head=head)
    output = model(torch.randn(2, 3, 100, 77), Variant.parse(name), TokenBudget(keep=0.5))
    masks = output.layout.unmerge(output.stages[-1].mask_logits.transpose(1, 2)).transpose(1, 2).unflatten(2, (7, 5))
    expected = F.interpolate(masks, size=(28, 20), mode='bilinear', align_corners=False)
    torch.testing.assert_close(output.refined_logits, expected)
    assert output.scores.shape == (2, 11, 28, 20) and output.cell_px == 4
    present = output.stages[-1].class_logits.softmax(-1)[..., 0]
    torch.testing.assert_close(output.scores, present[:, :, None, None] * expected.sigmoid())


@torch.no_grad()
def test_each_image_alone():
    model, images = build(trained=True), torch.randn(3, 3, 96, 128)
    variant, budget = Variant.parse('hybrid@6+8'), TokenBudget(threshold=0.3)
    together = model(images, variant, budget).scores
    for index in range(3):
        alone = model(images[index : index + 1], variant, budget).scores
        torch.testing.assert_close(alone[0], together[index], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_detail_smaller_than_a_patch_shows():
    model = build(trained=True)
    image = torch.zeros(1, 3, 96, 128)
    image[:, :, :, 60:64] = 2.0  # a pole, a quarter of a patch wide
    refined = model(image, Variant(), TokenBudget()).refined_logits
    within_patch = refined[0, :, 8:16, 12:16]  # the 4x4 cells of patches in the column with the pole
    assert (within_patch.amax(2) - within_patch.amin(2)).mean() > 0.1


def test_every_parameter_learns():
    model = build(trained=True)
    model(torch.randn(2, 3, 96, 128), Variant(), TokenBudget()).scores.sum().backward()
    assert all(parameter.grad is not None for parameter in model.refinement.parameters())


def test_needs_masks_and_patches_of_whole_cells():
    with pytest.raises(ModelSpecError, match='refinement: expected head atm or light, got linear'):
        tiny_spec(refinement='image', head='linear', variant=Variant())
    with pytest.raises(ModelSpecError, match='refinement: expected a patch size divisible by 4, got 14'):
        tiny_spec(refinement='image', backbone=Backbone(24, 12, 3, patch_size=14))
