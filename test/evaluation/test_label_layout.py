"""Labels at the network's size and per cell of the patch grid."""

import numpy as np
import pytest

from hybrid_seg_ros.evaluation.accuracy.calibration import majority_labels
from hybrid_seg_ros.evaluation.accuracy.policy_accuracy import fit_labels


def cell(*values):
    return np.array(values, np.uint8).reshape(2, 2)


@pytest.mark.parametrize(
    'values, expected',
    [
        ((1, 1, 1, 1), 1), ((1, 2, 2, 0), 2), ((2, 2, 1, 1), 1), ((255, 255, 255, 2), 255), ((255, 255, 0, 2), 0),
        ((255, 255, 2, 2), 2), ((255, 255, 255, 255), 255),
    ],
)  # fmt: skip
def test_majority(values, expected):
    assert majority_labels(cell(*values), 2, 3).tolist() == [[expected]]


def test_majority_of_a_grid_that_is_not_square():
    labels = np.hstack([cell(0, 0, 0, 1), cell(1, 1, 1, 0), cell(2, 2, 255, 255)])
    assert majority_labels(labels, 2, 3).tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match='multiples of 4'):
        majority_labels(labels, 4, 3)


def test_fit():
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    assert np.array_equal(fit_labels(labels, (2, 2), (2, 2)), labels)
    fitted = fit_labels(labels, (2, 4), (3, 5))
    assert fitted.tolist() == [[0, 0, 1, 1, 255], [2, 2, 3, 3, 255], [255] * 5]
