"""The grid's scores to labels: the same as upsampling everything and taking the argmax."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from traced_memory import traced_memory

from hybrid_seg_ros.inference.postprocess import postprocess
from hybrid_seg_ros.inference.preprocess import FrameGeometry
from hybrid_seg_ros.segmentation import GridPrediction, TokenReport

KINDS = ('probability', 'logits', 'mask_logits')


def prediction(kind, grid_hw, classes=7, patch=16, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(classes, *grid_hw)).astype(np.float32) * 3
    if kind == 'probability':
        scores = 1 / (1 + np.exp(-scores))
    mix = (rng.random((classes, classes)) / classes).astype(np.float32) if kind == 'mask_logits' else None
    cells = np.ones(grid_hw, np.uint8)
    return GridPrediction(scores, kind, TokenReport(grid_hw, cells, 0 * cells, cells.size), patch, mix)


def full_size(predicted, size_hw):
    """Return class scores (classes, H, W) as torch upsamples them."""
    scores = torch.from_numpy(predicted.scores)[None]
    scores = F.interpolate(scores, size=size_hw, mode='bilinear', align_corners=False)[0]
    if predicted.kind == 'mask_logits':
        return torch.einsum('cq,qhw->chw', torch.from_numpy(predicted.class_mix), scores.sigmoid())
    return scores


def check(labels, confidence, predicted, upsample):
    """Labels are those of the highest score, two nearly equal scores aside; confidence is that score.

    Of logits it is the winner's softmax, which is taken in the grid and upsampled like the scores.
    """
    scores = upsample(predicted)
    best, second = scores.topk(2, dim=0).values
    clear = (best - second > 1e-5).numpy()
    assert clear.mean() > 0.999
    assert np.array_equal(labels[clear], scores.argmax(0).numpy()[clear])
    expected = best.clamp(0, 1)
    if predicted.kind == 'logits':
        softmax = torch.from_numpy(predicted.scores).softmax(0).numpy()
        upsampled = upsample(dataclasses.replace(predicted, scores=softmax))
        expected = upsampled.gather(0, torch.from_numpy(labels[None].astype(np.int64)))[0]
    np.testing.assert_allclose(confidence, expected.numpy(), atol=1e-5)
    assert labels.dtype == np.uint8 and confidence.dtype == np.float32


@pytest.mark.parametrize('grid_hw', [(6, 8), (3, 1), (1, 5), (1, 1)])
@pytest.mark.parametrize('kind', KINDS)
def test_same_size_is_upsample_then_argmax(kind, grid_hw):
    predicted, size_hw = prediction(kind, grid_hw), (grid_hw[0] * 16, grid_hw[1] * 16)
    labels, confidence = postprocess(predicted, FrameGeometry(size_hw, size_hw, size_hw), size_hw)
    check(labels, confidence, predicted, lambda part: full_size(part, size_hw))


@pytest.mark.parametrize('output_hw', [(50, 61), (61, 200), (333, 411)])
@pytest.mark.parametrize('kind', KINDS)
def test_stretched_images(kind, output_hw):
    """One sampling of the grid at the output's size, larger or smaller than the network's."""
    predicted = prediction(kind, (6, 8))
    labels, confidence = postprocess(predicted, FrameGeometry(output_hw, (96, 128), (96, 128)), output_hw)
    check(labels, confidence, predicted, lambda part: full_size(part, output_hw))


@pytest.mark.parametrize('content_hw', [(96, 77), (51, 128), (96, 128)])
@pytest.mark.parametrize('kind', KINDS)
def test_letterbox_is_upsample_then_crop(kind, content_hw):
    predicted = prediction(kind, (6, 8))
    labels, confidence = postprocess(predicted, FrameGeometry(content_hw, content_hw, (96, 128)), content_hw)
    check(labels, confidence, predicted, lambda part: full_size(part, (96, 128))[:, : content_hw[0], : content_hw[1]])


def test_network_sides_that_are_no_multiple_of_the_patch():
    """A 100x77 input has a 7x5 grid that reaches past it."""
    predicted = prediction('probability', (7, 5))
    labels, confidence = postprocess(predicted, FrameGeometry((100, 77), (100, 77), (100, 77)), (100, 77))
    check(labels, confidence, predicted, lambda part: full_size(part, (112, 80))[:, :100, :77])


def test_bands_do_not_show(monkeypatch):
    predicted, size_hw = prediction('mask_logits', (6, 8)), (96, 128)
    whole = postprocess(predicted, FrameGeometry(size_hw, size_hw, size_hw), size_hw)
    monkeypatch.setattr('hybrid_seg_ros.inference.postprocess.SCORES_AT_ONCE', 7 * 128 * 10)
    labels, confidence = postprocess(predicted, FrameGeometry(size_hw, size_hw, size_hw), size_hw)
    assert np.array_equal(labels, whole[0])
    np.testing.assert_allclose(confidence, whole[1], atol=1e-6)


def test_ties_take_the_first_class():
    predicted = prediction('probability', (2, 3), classes=3)
    same = GridPrediction(np.full_like(predicted.scores, 0.25), 'probability', predicted.tokens, 16)
    labels, confidence = postprocess(same, FrameGeometry((32, 48), (32, 48), (32, 48)), (32, 48))
    assert not labels.any() and np.all(confidence == np.float32(0.25))


def test_large_logits_do_not_overflow():
    predicted = prediction('logits', (2, 3))
    large = GridPrediction(predicted.scores * 1e4, 'logits', predicted.tokens, 16)
    labels, confidence = postprocess(large, FrameGeometry((32, 48), (32, 48), (32, 48)), (32, 48))
    assert np.isfinite(confidence).all() and confidence.min() >= 0 and confidence.max() <= 1
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize('kind', KINDS)
def test_memory_is_far_below_that_of_all_classes(kind):
    predicted, size_hw = prediction(kind, (32, 32), classes=64), (512, 512)
    geometry = FrameGeometry(size_hw, size_hw, size_hw)
    postprocess(predicted, geometry, size_hw)
    with traced_memory() as memory:
        postprocess(predicted, geometry, size_hw)
    assert memory.peak < 64 * 512 * 512 * 4 / 2
