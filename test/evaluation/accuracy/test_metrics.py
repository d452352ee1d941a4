"""Mean IoU and pixel accuracy against counting by hand."""

import numpy as np
import pytest

from hybrid_seg_ros.evaluation.accuracy.metrics import ConfusionMatrix


def test_against_counting():
    rng = np.random.default_rng(0)
    matrix, pairs = ConfusionMatrix(5), []
    for _ in range(3):
        target, predicted = (rng.integers(0, 4, (9, 13)).astype(np.uint8) for _ in range(2))
        target[rng.random(target.shape) < 0.2] = 255
        predicted[rng.random(target.shape) < 0.1] = 255
        matrix.update(predicted, target)
        pairs += [(p, t) for p, t in zip(predicted.ravel(), target.ravel()) if t != 255]
    for label in range(4):
        hits = sum(p == t == label for p, t in pairs)
        union = sum(label in (p, t) for p, t in pairs)
        assert matrix.iou_per_class()[label] == pytest.approx(100 * hits / union)
    assert np.isnan(matrix.iou_per_class()[4]), 'absent from labels and predictions'
    assert matrix.miou() == pytest.approx(np.mean(matrix.iou_per_class()[:4]))
    assert matrix.pixel_accuracy() == pytest.approx(100 * np.mean([p == t for p, t in pairs]))


def test_matrices_add_up():
    rng = np.random.default_rng(1)
    parts, whole = [ConfusionMatrix(4), ConfusionMatrix(4)], ConfusionMatrix(4)
    for part in parts:
        predicted, target = rng.integers(0, 4, (2, 6, 7)).astype(np.uint8)
        part.update(predicted, target)
        whole.update(predicted, target)
    before = parts[1].miou()
    parts[0].add(parts[1])
    assert parts[0].miou() == whole.miou() != before and parts[1].miou() == before
    with pytest.raises(ValueError, match='expected a matrix of 4 classes, got 3'):
        parts[0].add(ConfusionMatrix(3))


def test_a_predicted_class_that_is_not_there_counts():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 2]], np.uint8), np.array([[0, 0]], np.uint8))
    assert matrix.iou_per_class()[[0, 2]].tolist() == [50, 0] and matrix.miou() == 25


def test_nothing_labelled_and_reset():
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert np.isnan(matrix.miou()) and np.isnan(matrix.pixel_accuracy())
    matrix.update(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert matrix.miou() == 100
    matrix.reset()
    assert np.isnan(matrix.miou())


@pytest.mark.parametrize(
    ('predicted', 'target', 'message'),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 'one size'),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8), 'below 3 or 255, got 3'),
    ],
)
def test_bad_labels(predicted, target, message):
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(3).update(predicted, target)
