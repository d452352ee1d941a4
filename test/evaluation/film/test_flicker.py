"""Flicker: what moves is not flicker, what changes is."""

import cv2
import numpy as np
import pytest

from hybrid_seg_ros.evaluation.film.flicker import LONG_SIDE, Motion
from hybrid_seg_ros.label_space import UNLABELLED

SIZE_HW = (96, 160)


def textured(size_hw, seed=0):
    """A picture that flow can follow: noise, blurred, in colour."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5.0), None, 0, 255, cv2.NORM_MINMAX)


def view(world, left, size_hw=SIZE_HW):
    return world[: size_hw[0], left : left + size_hw[1]]


LABELS = np.repeat(np.arange(25, dtype=np.uint8), 8)[None].repeat(SIZE_HW[0], 0)  # stripes of 8 pixels over 200


def test_a_camera_that_pans_does_not_flicker():
    world = textured((SIZE_HW[0], 200))
    motion = Motion.between(view(world, 0), view(world, 6))
    assert motion.is_seen.mean() > 0.8
    assert motion.flicker(view(LABELS, 0), view(LABELS, 6)) < 1.0
    assert motion.flicker(view(LABELS, 0), view(LABELS, 0)) > 50.0  # labels that do not move with the world


@pytest.mark.parametrize('changed_rows', [0, 24, 96])
def test_a_still_camera_counts_the_pixels_that_changed(changed_rows):
    world = textured(SIZE_HW)
    motion = Motion.between(world, world)
    assert motion.is_seen.all()
    before, after = view(LABELS, 0), view(LABELS, 0).copy()
    after[:changed_rows] += 1
    assert motion.flicker(before, after) == pytest.approx(100 * changed_rows / SIZE_HW[0])


def test_unlabelled_pixels_are_left_out():
    world = textured(SIZE_HW)
    motion = Motion.between(world, world)
    before = np.zeros(SIZE_HW, np.uint8)
    after = before.copy()
    after[:48] = UNLABELLED
    after[48:60] = 1
    assert motion.flicker(before, after) == motion.flicker(after, before) == pytest.approx(25.0)
    assert np.isnan(motion.flicker(before, np.full(SIZE_HW, UNLABELLED, np.uint8)))


def test_what_was_out_of_sight_is_left_out():
    """After a pan to the right the new right edge was not in the frame before."""
    world = textured((SIZE_HW[0], 200))
    motion = Motion.between(view(world, 0), view(world, 10))
    assert motion.is_seen[:, -7:].mean() < 0.25 and motion.is_seen[:, 20:120].mean() > 0.8


def test_large_frames_are_compared_small_and_sizes_must_agree():
    large = textured((600, 1100))
    motion = Motion.between(large, large)
    assert max(motion.is_seen.shape) == LONG_SIDE
    assert motion.flicker(np.zeros((600, 1100), np.uint8), np.ones((300, 550), np.uint8)) == pytest.approx(100.0)
    with pytest.raises(ValueError, match='frames of one size'):
        Motion.between(large, large[:500])
