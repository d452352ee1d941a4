"""Axes and matrices interpolate as np.interp does, whatever the knots."""

import numpy as np
import pytest

from hybrid_seg_ros.inference.interpolation import (
    cell_centres,
    interpolation_axis,
    interpolation_matrix,
    pixel_positions,
)

AXES = [
    (cell_centres(4, 16), 64, 64),
    (cell_centres(8, 4), 32, 30),
    (cell_centres(8, 4), 27, 50),
    (cell_centres(8, 4), 32, 3),
    (cell_centres(5, 1), 5, 5),
    (cell_centres(1, 16), 16, 40),
    (cell_centres(3, 16), 40, 1),
    ((0, 7, 8, 23, 24, 31), 32, 32),
    ((0, 7, 8, 23, 24, 31), 32, 45),
    ((0, 1, 2, 3, 11, 12, 13, 14, 19), 20, 33),
    ((0,), 1, 9),
]


@pytest.mark.parametrize(('knots', 'content', 'output'), AXES)
def test_an_axis_places_each_pixel_once_between_its_knots(knots, content, output):
    axis = interpolation_axis(knots, content, output)
    positions = np.clip(pixel_positions(output, content), knots[0], knots[-1])
    seen, drawn = [], []
    for group in axis.groups:
        ends = np.array(knots)[group.low], np.array(knots)[group.high]
        drawn.append((ends[0][:, None] + (ends[1] - ends[0])[:, None] * group.weights.T).reshape(-1))
        assert group.weights.dtype == np.float32 and group.weights.min() >= 0 and group.weights.max() <= 1
        assert (group.high - group.low <= 1).all()
        seen.extend(group.pixels[group.pixels >= 0])
    assert sorted(seen) == list(range(output)) and axis.size == output
    np.testing.assert_allclose(np.concatenate(drawn)[axis.order], positions, atol=1e-5)


@pytest.mark.parametrize(('knots', 'content', 'output'), AXES)
def test_a_part_of_an_axis(knots, content, output):
    whole, part = interpolation_axis(knots, content, output), interpolation_axis(knots, content, output, output // 3)
    assert part.size == output - output // 3
    expected, got = (
        np.concatenate([(group.low[:, None] + group.weights.T).reshape(-1) for group in axis.groups])[axis.order]
        for axis in (whole, part)
    )
    np.testing.assert_array_equal(got, expected[output // 3 :])


def test_regular_intervals_need_no_sorting():
    """All of 33 intervals are drawn at once: the half ones at the ends are padded, on the outside."""
    axis = interpolation_axis(cell_centres(32, 16), 512, 512)
    assert [group.pixels.shape for group in axis.groups] == [(33, 16)]
    assert axis.order == slice(8, 520)


def test_intervals_of_unlike_length_are_drawn_apart():
    """Intervals of 15 and of 1 pixel, turn by turn: padding all to 15 would nearly double the work."""
    knots = tuple(pixel for cell in range(32) for pixel in (16 * cell, 16 * cell + 15))
    axis = interpolation_axis(knots, 512, 1024)
    assert len(axis.groups) > 1
    assert sum(group.pixels.size for group in axis.groups) < 1.2 * 1024


@pytest.mark.parametrize(('knots', 'content', 'output'), AXES)
def test_interpolation_matrix(knots, content, output):
    positions = pixel_positions(output, content)
    matrix = interpolation_matrix(knots, positions)
    assert matrix.shape == (output, len(knots)) and matrix.dtype == np.float32
    assert matrix.min() >= 0 and (matrix > 0).sum(1).max() <= 2
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix @ np.array(knots), np.clip(positions, knots[0], knots[-1]), atol=1e-5)


def test_a_knot_per_pixel_is_the_identity():
    assert np.array_equal(interpolation_matrix(range(5), np.arange(5)), np.eye(5, dtype=np.float32))
