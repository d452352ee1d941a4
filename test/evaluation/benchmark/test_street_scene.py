"""A street that a seed repeats, smooth in most places and different in others, as a camera's image is."""

import numpy as np
import pytest

from hybrid_seg_ros.evaluation.benchmark.street_scene import GRAIN, street_scene


@pytest.mark.parametrize('size_hw', [(512, 512), (96, 128), (16, 16), (33, 70)])
def test_a_seed_repeats_a_street_of_any_size(size_hw):
    image = street_scene(size_hw, 3)
    assert image.shape == (*size_hw, 3) and image.dtype == np.uint8
    assert np.array_equal(image, street_scene(size_hw, 3))
    assert not np.array_equal(image, street_scene(size_hw, 4))


@pytest.mark.parametrize('seed', range(3))
def test_most_windows_show_one_surface_and_some_an_edge(seed):
    image = street_scene((512, 512), seed).mean(2)
    spread = image.reshape(16, 32, 16, 32).std((1, 3))
    smooth = np.mean(spread < 2 * GRAIN)
    assert 0.5 < smooth < 0.95
    assert image.mean((1,))[:100].mean() > image.mean((1,))[400:].mean(), 'the sky is brighter than the road'
