"""Classes pasted from one view into another."""

import numpy as np
import pytest

from hybrid_seg_ros.data.class_paste import paste_classes
from hybrid_seg_ros.data.segmentation_dataset import Sample


def view(name, labels):
    labels = np.asarray(labels, np.uint8)
    return Sample(name, np.repeat(labels[:, :, None] * 10 + (name == 'donor'), 3, 2).astype(np.uint8), labels)


TARGET = view('target', [[0, 0, 0], [1, 1, 255]])
DONOR = view('donor', [[2, 3, 255], [4, 2, 0]])


@pytest.mark.parametrize(
    ('class_ids', 'pasted_sets'),
    [
        ([2], [{2}]),
        ([2, 3], [{2}, {3}]),
        ([2, 3, 4], [{2, 3}, {2, 4}, {3, 4}]),
        ([4, 9], [{4}]),
    ],
)
def test_a_random_half_of_the_classes_is_pasted(class_ids, pasted_sets):
    seen = []
    for seed in range(40):
        result = paste_classes(TARGET, DONOR, class_ids, np.random.default_rng(seed))
        mask = np.isin(DONOR.labels, class_ids) & (result.labels == DONOR.labels) & (result.labels != TARGET.labels)
        assert np.array_equal(result.labels[~mask], TARGET.labels[~mask])
        assert np.array_equal(result.image[mask], DONOR.image[mask])
        assert np.array_equal(result.image[~mask], TARGET.image[~mask])
        assert result.name == 'target' and result.image.dtype == result.labels.dtype == np.uint8
        pasted = set(np.unique(result.labels[mask]).tolist())
        if pasted not in seen:
            seen.append(pasted)
    assert sorted(map(sorted, seen)) == sorted(map(sorted, pasted_sets))


def test_a_donor_without_the_classes_changes_nothing():
    assert paste_classes(TARGET, DONOR, [7, 8], np.random.default_rng(0)) is TARGET
    assert paste_classes(TARGET, DONOR, [], np.random.default_rng(0)) is TARGET


def test_views_of_two_sizes():
    with pytest.raises(ValueError, match=r'views of one size, got \(2, 3\) and \(1, 2\)'):
        paste_classes(TARGET, view('donor', [[2, 2]]), [2], np.random.default_rng(0))
