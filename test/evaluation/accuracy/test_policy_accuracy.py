"""How many windows were merged that should not have been."""

import numpy as np
import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.data.camvid import CAMVID_CLASSES
from hybrid_seg_ros.data.segmentation_dataset import Sample
from hybrid_seg_ros.evaluation.accuracy.policy_accuracy import count_wrong_merges, fit_labels, policy_accuracy
from hybrid_seg_ros.label_space import UNLABELLED
from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.segmentation import TokenReport
from hybrid_seg_ros.training.initial_model import load_imagenet_trunk

SPEC = tiny_spec(input_size_hw=(96, 128))


def report(*windows):
    """Return a report of a 6x8 grid whose 2x2 windows (row, column) share a token."""
    size = np.ones((6, 8), np.uint8)
    for row, column in windows:
        size[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 2
    return TokenReport((6, 8), size, np.zeros((6, 8), np.uint8), 48 - 3 * len(windows))


def labels(scale):
    """Return three classes; only the windows in column 1, and the one in row 2 and column 2, hold two of them."""
    result = np.zeros((96, 128), np.uint8)
    result[:, 40:] = 3
    result[80:, 70:96] = 5
    return np.repeat(np.repeat(result, scale, 0), scale, 1)


@pytest.mark.parametrize('scale', [1, 2])
@pytest.mark.parametrize(
    ('windows', 'wrong'),
    [((), 0), (((0, 0), (1, 3)), 0), (((0, 1), (0, 0)), 1), (((0, 1), (2, 1), (2, 2), (2, 3)), 3)],
)
def test_wrong_merges(windows, wrong, scale):
    assert count_wrong_merges(report(*windows), labels(scale), SPEC) == (wrong, len(windows))


def test_void_in_a_window_counts_as_another_class_but_not_on_the_border():
    inside, border = np.zeros((96, 128), np.uint8), np.zeros((96, 128), np.uint8)
    inside[40, 40] = border[0, 0] = UNLABELLED
    assert count_wrong_merges(report((1, 1)), inside, SPEC) == (1, 1)
    assert count_wrong_merges(report((0, 0)), border, SPEC) == (0, 1)


def test_agrees_with_what_the_policy_network_chooses():
    torch.manual_seed(0)
    spec = tiny_spec(input_size_hw=(96, 128), budget=TokenBudget(merged_windows=5))
    model = HybridSegmenter(spec).eval()
    load_imagenet_trunk(model.policy.backbone)  # random numbers give all windows one score
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)

    class OneSample:
        classes = CAMVID_CLASSES

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Sample('x', image, labels(1))

    with torch.no_grad():
        output = model(model.normalize(torch.from_numpy(image)[None]), Variant.parse('cts'), spec.budget)
    size = output.layout.unmerge(output.layout.window_sizes()[:, :, None])[0].view(6, 8).numpy().astype(np.uint8)
    tokens = TokenReport((6, 8), size, np.zeros((6, 8), np.uint8), output.layout.num_tokens)
    wrong, merged = count_wrong_merges(tokens, labels(1), spec)
    assert merged == 5 and policy_accuracy(model, spec, OneSample()).wrongly_merged == pytest.approx(100 * wrong / 5)


def test_fit():
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    assert np.array_equal(fit_labels(labels, (2, 2), (2, 2)), labels)
    fitted = fit_labels(labels, (2, 4), (3, 5))
    assert fitted.tolist() == [[0, 0, 1, 1, 255], [2, 2, 3, 3, 255], [255] * 5]
