"""Axes interpolate as np.interp does, whatever the knots; the winners are those of interpolating every class."""


import numpy as np
import pytest
from traced_memory import traced_memory

from hybrid_seg_ros.inference import interpolation
from hybrid_seg_ros.inference.interpolation import (
    cell_centres,
    interpolated_argmax,
    interpolation_axis,
    interpolation_matrix,
    pixel_positions,
)

AXES = [
    (cell_centres(4, 16), 64, 64),
    (cell_centres(8, 4), 27, 50),
    (cell_centres(8, 4), 32, 3),
    (cell_centres(5, 1), 5, 5),
    (cell_centres(1, 16), 16, 40),
    (cell_centres(3, 16), 40, 1),
    ((0, 7, 8, 23, 24, 31), 32, 45),
    ((0, 1, 2, 3, 11, 12, 13, 14, 19), 20, 33),
    ((0,), 1, 9),
]


@pytest.mark.parametrize(('knots', 'content', 'output'), AXES)
def test_an_axis_places_each_pixel_between_its_knots(knots, content, output):
    axis, positions = interpolation_axis(knots, content, output), pixel_positions(output, content)
    expected = np.clip(positions, knots[0], knots[-1])

    def drawn(low, high, weight):
        return np.array(knots)[low] + (np.array(knots)[high] - np.array(knots)[low]) * weight

    by_pixel = drawn(axis.low[axis.interval], axis.high[axis.interval], axis.weight)
    np.testing.assert_allclose(by_pixel, expected, atol=1e-5)
    by_interval = drawn(axis.low[:, None], axis.high[:, None], axis.weights)
    np.testing.assert_allclose(by_interval, expected[axis.pixels], atol=1e-5)
    assert sorted(set(axis.pixels.flat)) == list(range(output)) and (axis.high - axis.low <= 1).all()
    assert axis.weight.dtype == np.float32 and axis.weight.min() >= 0 and axis.weight.max() <= 1
    part = interpolation_axis(knots, content, output, output // 3)
    np.testing.assert_array_equal(part.low[part.interval], axis.low[axis.interval][output // 3 :])
    np.testing.assert_array_equal(part.weight, axis.weight[output // 3 :])
    matrix = interpolation_matrix(knots, positions)
    assert matrix.shape == (output, len(knots)) and matrix.dtype == np.float32
    assert matrix.min() >= 0 and (matrix > 0).sum(1).max() <= 2
    np.testing.assert_allclose(matrix @ np.array(knots), expected, atol=1e-5)


SIZES = [  # grid, pixels per cell, output
    ((6, 8), 16, (96, 128)),
    ((6, 8), 4, (23, 31)),
    ((6, 8), 4, (50, 61)),
    ((6, 8), 4, (4, 5)),
    ((1, 5), 16, (16, 80)),
    ((7, 1), 4, (40, 9)),
    ((1, 1), 16, (3, 7)),
]


def axes(grid_hw, cell_px, output_hw):
    return (
        interpolation_axis(cell_centres(cells, cell_px), cells * cell_px, output)
        for cells, output in zip(grid_hw, output_hw)
    )


def smooth(rng, classes, grid_hw):
    """Few classes far above the others, in large areas: as a trained network scores an image."""
    scores = rng.random((classes, *grid_hw)) * 0.1
    rows, columns = np.indices(grid_hw)
    for index, (row, column) in enumerate(rng.random((min(classes, 4), 2)) * grid_hw):
        scores[index * classes // 4] += np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)
    return scores


def noise(rng, classes, grid_hw):
    return rng.random((classes, *grid_hw))


def logits(rng, classes, grid_hw):
    return rng.normal(size=(classes, *grid_hw)) * 1e3


def tied(rng, classes, grid_hw):
    """Values of a few steps only: classes are equal at many knots, and along whole lines between them."""
    return rng.integers(0, 3, (classes, *grid_hw)) / 2.0


def nearly_tied(rng, classes, grid_hw):
    """Classes that interpolation's rounding takes above one another."""
    return 0.3 + rng.random((1, *grid_hw)) + rng.integers(-2, 3, (classes, *grid_hw)) * 1e-7


def all_equal(rng, classes, grid_hw):
    return np.broadcast_to(rng.random((1, *grid_hw)), (classes, *grid_hw))


@pytest.mark.parametrize('make', [smooth, noise, logits, tied, nearly_tied, all_equal])
@pytest.mark.parametrize(('grid_hw', 'cell_px', 'output_hw'), SIZES)
def test_labels_are_the_argmax_of_every_interpolated_class(make, grid_hw, cell_px, output_hw):
    for classes in (1, 2, 19, 256):
        scores = make(np.random.default_rng(0), classes, grid_hw).astype(np.float32)
        rows, columns = axes(grid_hw, cell_px, output_hw)
        labels, highest = interpolated_argmax(scores, rows, columns)
        alone, nothing = interpolated_argmax(scores, rows, columns, with_values=False)
        assert np.array_equal(alone, labels) and nothing is None
        each = np.stack([interpolated_argmax(scores[index : index + 1], rows, columns)[1] for index in range(classes)])
        assert labels.dtype == np.uint8 and highest.dtype == np.float32 and labels.shape == output_hw
        np.testing.assert_array_equal(labels, each.argmax(0))
        np.testing.assert_array_equal(highest, each.max(0))


@pytest.mark.parametrize(('grid_hw', 'cell_px', 'output_hw'), SIZES)
def test_one_class_is_plain_interpolation(grid_hw, cell_px, output_hw):
    scores = np.random.default_rng(1).random((1, *grid_hw)).astype(np.float32)
    at = [
        np.clip((np.arange(output) + 0.5) * cells / output - 0.5, 0, cells - 1)
        for cells, output in zip(grid_hw, output_hw)
    ]
    by_row = np.stack([np.interp(at[1], np.arange(grid_hw[1]), row) for row in scores[0]])
    expected = np.stack([np.interp(at[0], np.arange(grid_hw[0]), column) for column in by_row.T], 1)
    labels, values = interpolated_argmax(scores, *axes(grid_hw, cell_px, output_hw))
    assert not labels.any()
    np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize('make', [smooth, noise, tied])
def test_other_values_of_the_winner_and_pieces_do_not_show(make, monkeypatch):
    rng = np.random.default_rng(2)
    scores, values = make(rng, 9, (6, 8)).astype(np.float32), rng.random((9, 6, 8)).astype(np.float32)
    rows, columns = axes((6, 8), 16, (77, 128))
    labels, chosen = interpolated_argmax(scores, rows, columns, values)
    each = np.stack([interpolated_argmax(values[index : index + 1], rows, columns)[1] for index in range(9)])
    np.testing.assert_array_equal(labels, interpolated_argmax(scores, rows, columns)[0])
    np.testing.assert_array_equal(chosen, np.take_along_axis(each, labels[None].astype(int), 0)[0])
    monkeypatch.setattr(interpolation, 'PIXELS_AT_ONCE', 1000)
    for one, other in zip(interpolated_argmax(scores, rows, columns, values), (labels, chosen)):
        np.testing.assert_array_equal(one, other)


def test_any_memory_layout():
    scores = noise(np.random.default_rng(3), 9, (6, 8)).astype(np.float32)
    expected = interpolated_argmax(scores, *axes((6, 8), 16, (96, 128)))
    classes_last = np.ascontiguousarray(scores.transpose(1, 2, 0)).transpose(2, 0, 1)
    for view in (classes_last, np.asfortranarray(scores), np.repeat(scores, 2, 2)[:, :, ::2]):
        for one, other in zip(interpolated_argmax(view, *axes((6, 8), 16, (96, 128))), expected):
            np.testing.assert_array_equal(one, other)


def test_scores_that_are_not_finite_do_not_stop_it():
    scores = noise(np.random.default_rng(4), 5, (6, 8)).astype(np.float32)
    scores[2, 1] = np.nan
    labels, _ = interpolated_argmax(scores, *axes((6, 8), 16, (96, 128)))
    assert labels.max() < 5


@pytest.mark.parametrize('classes', [0, 257])
def test_labels_are_bytes(classes):
    with pytest.raises(ValueError, match='1 to 256 classes'):
        interpolated_argmax(np.zeros((classes, 2, 2), np.float32), *axes((2, 2), 16, (32, 32)))


@pytest.mark.parametrize('make', [smooth, noise, all_equal])
def test_memory_is_far_below_that_of_all_classes(make):
    """Also of noise, where any class may win anywhere."""
    scores = make(np.random.default_rng(5), 150, (16, 16)).astype(np.float32)
    rows, columns = axes((16, 16), 16, (256, 256))
    interpolated_argmax(scores, rows, columns)
    with traced_memory() as memory:
        interpolated_argmax(scores, rows, columns)
    assert memory.peak < 150 * 256 * 256 * 4 / 3
