"""Crops to labels: the same as upsampling and averaging every class at the resized image's size, then resizing."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from traced_memory import traced_memory

from hybrid_seg_ros.inference import sliding_window
from hybrid_seg_ros.inference.sliding_window import CropPlan, average_crops, crop_knots, plan_crops, postprocess_crops
from hybrid_seg_ros.model_spec import SlidingWindow
from hybrid_seg_ros.segmentation import GridPrediction, TokenReport

KINDS = ('probability', 'logits', 'mask_logits')
CASES = {  # image, crop, stride, pixels per cell, output
    'one crop': ((96, 96), 96, 64, 16, (96, 96)),
    'one axis': ((60, 150), 96, 64, 16, (60, 150)),
    'at the size of the resized image': ((96, 150), 96, 64, 16, (96, 150)),
    'smaller output': ((120, 310), 96, 64, 16, (40, 101)),
    'small cells': ((70, 100), 64, 40, 4, (70, 100)),
    'centres on pixels': ((90, 160), 60, 33, 15, (90, 160)),
    'grids past the crop': ((80, 171), 70, 50, 16, (80, 171)),
    'crops side by side': ((64, 200), 64, 64, 16, (64, 200)),
    'both axes': ((20, 300), 64, 40, 16, (20, 300)),
}


def crop_predictions(plan, cell_px, kind, classes=7, seed=0, make=np.random.Generator.random):
    rng = np.random.default_rng(seed)
    grid = -(-plan.crop // cell_px)
    tokens = TokenReport((grid, grid), np.ones((grid, grid), np.uint8), np.zeros((grid, grid), np.uint8), grid * grid)
    mix = (rng.random((classes, classes)) / classes).astype(np.float32) if kind == 'mask_logits' else None
    scale = 1 if kind == 'probability' else 6
    return [
        GridPrediction(scale * make(rng, (classes, grid, grid)).astype(np.float32), kind, tokens, cell_px, mix)
        for _ in plan.corners
    ]


def averaged(predictions, plan, scores_of=lambda prediction: torch.from_numpy(prediction.scores)):
    """Return class scores (classes, H, W) at the resized image's size."""
    total = count = 0
    for prediction, (top, left) in zip(predictions, plan.corners):
        scores = scores_of(prediction)
        size = scores.shape[1] * prediction.cell_px
        scores = F.interpolate(scores[None].double(), size=(size, size), mode='bilinear', align_corners=False)[0]
        scores = scores[:, : plan.crop, : plan.crop]
        if prediction.kind == 'mask_logits':
            scores = torch.einsum('cq,qhw->chw', torch.from_numpy(prediction.class_mix).double(), scores.sigmoid())
        place = (left, plan.resized_hw[1] - left - plan.crop, top, plan.resized_hw[0] - top - plan.crop)
        total = total + F.pad(scores, place)
        count = count + F.pad(torch.ones_like(scores), place)
    return total / count


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('case', CASES)
def test_labels_and_confidence(case, kind):
    image_hw, crop, stride, cell_px, output_hw = CASES[case]
    plan = plan_crops(image_hw, SlidingWindow(crop, stride))
    predictions = crop_predictions(plan, cell_px, kind)
    labels, confidence = postprocess_crops(predictions, plan, output_hw)

    def resized(scores):
        return F.interpolate(scores[None], size=output_hw, mode='bilinear', align_corners=False)[0]

    scores = resized(averaged(predictions, plan))
    best, second = scores.topk(2, dim=0).values
    clear = (best - second > 1e-5).numpy()
    assert clear.mean() > 0.99
    assert labels.shape == output_hw and labels.dtype == np.uint8 and confidence.dtype == np.float32
    np.testing.assert_array_equal(labels[clear], scores.argmax(0).numpy()[clear])
    if kind != 'logits':
        np.testing.assert_allclose(confidence, best.clamp(0, 1).numpy(), atol=1e-5)
        return
    softmax = resized_softmax(predictions, plan, output_hw)
    chosen = softmax.gather(0, torch.from_numpy(labels[None].astype(np.int64)))[0]
    np.testing.assert_allclose(confidence, chosen.numpy(), atol=1e-5)


def resized_softmax(predictions, plan, output_hw):
    """Return the softmax (classes, H, W) of the averaged logits at the knots, interpolated from there."""
    rows, columns = crop_knots(plan, predictions[0])
    softmax = averaged(predictions, plan)[:, list(rows)][:, :, list(columns)].softmax(0).numpy()
    at = [
        np.clip((np.arange(output) + 0.5) * resized / output - 0.5, 0, resized - 1)
        for output, resized in zip(output_hw, plan.resized_hw)
    ]
    by_column = np.apply_along_axis(lambda line: np.interp(at[1], columns, line), 2, softmax)
    return torch.from_numpy(np.apply_along_axis(lambda line: np.interp(at[0], rows, line), 1, by_column))


@pytest.mark.parametrize('case', CASES)
def test_the_average_is_bilinear_between_the_knots(case):
    image_hw, crop, stride, cell_px, _ = CASES[case]
    plan = plan_crops(image_hw, SlidingWindow(crop, stride))
    predictions = crop_predictions(plan, cell_px, 'probability', classes=2)
    expected = averaged(predictions, plan).numpy()
    everywhere = average_crops(predictions, plan, range(plan.resized_hw[0]), range(plan.resized_hw[1]))
    np.testing.assert_allclose(everywhere, expected, atol=1e-6)
    rows, columns = crop_knots(plan, predictions[0])
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (0, plan.resized_hw[0] - 1, 0, plan.resized_hw[1] - 1)
    at_knots = average_crops(predictions, plan, rows, columns)
    np.testing.assert_allclose(at_knots, expected[:, list(rows)][:, :, list(columns)], atol=1e-6)
    by_column = np.apply_along_axis(lambda line: np.interp(np.arange(plan.resized_hw[1]), columns, line), 2, at_knots)
    filled = np.apply_along_axis(lambda line: np.interp(np.arange(plan.resized_hw[0]), rows, line), 1, by_column)
    np.testing.assert_allclose(filled, expected, atol=1e-5)


def test_knots_are_few():
    """Two for each cell that is seen; more only where crops with unlike cells overlap."""
    plan = CropPlan((512, 853), (512, 853), 512, ((0, 0), (0, 341)))
    rows, columns = crop_knots(plan, crop_predictions(plan, 16, 'probability')[0])
    assert len(rows) == 66 and len(columns) < 2 * 2 * 33 + 4


@pytest.mark.parametrize('kind', KINDS)
def test_ties_take_the_first_class(kind):
    plan = plan_crops((60, 150), SlidingWindow(96, 64))
    predictions = crop_predictions(plan, 16, kind, make=lambda rng, shape: np.full(shape, 0.25))
    if kind == 'mask_logits':
        predictions = [dataclasses.replace(one, class_mix=np.full_like(one.class_mix, 0.1)) for one in predictions]
    labels, confidence = postprocess_crops(predictions, plan, (60, 150))
    assert not labels.any() and np.ptp(confidence) < 1e-6


@pytest.mark.parametrize('kind', KINDS)
def test_bands_do_not_show(kind, monkeypatch):
    plan = plan_crops((120, 310), SlidingWindow(96, 64))
    predictions = crop_predictions(plan, 16, kind)
    whole = postprocess_crops(predictions, plan, (100, 257))
    monkeypatch.setattr(sliding_window, 'SCORES_OF_BAND', 700)
    labels, confidence = postprocess_crops(predictions, plan, (100, 257))
    np.testing.assert_array_equal(labels, whole[0])
    np.testing.assert_allclose(confidence, whole[1], atol=1e-6)


@pytest.mark.parametrize(('kind', 'cell_px'), [('probability', 16), ('probability', 4), ('mask_logits', 16)])
def test_memory_is_far_below_that_of_all_classes(kind, cell_px):
    """Also where there are so many cells that they are averaged in bands."""
    plan = plan_crops((256, 640), SlidingWindow(256, 171))
    predictions = crop_predictions(plan, cell_px, kind, classes=100)
    postprocess_crops(predictions, plan, plan.image_hw)
    with traced_memory() as memory:
        postprocess_crops(predictions, plan, plan.image_hw)
    assert memory.peak < 100 * 256 * 640 * 4 * 0.7
