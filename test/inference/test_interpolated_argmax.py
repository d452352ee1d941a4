"""The winners among all interpolated classes, found without interpolating them all: bit for bit the same."""

import tracemalloc

import numpy as np
import pytest

from hybrid_seg_ros.inference import interpolated_argmax as interpolated_argmax_module
from hybrid_seg_ros.inference.interpolated_argmax import interpolated_argmax
from hybrid_seg_ros.inference.interpolation import cell_centres, interpolation_axis

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


@pytest.mark.parametrize('classes', [1, 2, 19, 256])
@pytest.mark.parametrize('make', [smooth, noise, logits, tied, nearly_tied, all_equal])
@pytest.mark.parametrize(('grid_hw', 'cell_px', 'output_hw'), SIZES)
def test_labels_are_the_argmax_of_every_interpolated_class(make, classes, grid_hw, cell_px, output_hw):
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
def test_other_values_of_the_winner(make):
    rng = np.random.default_rng(2)
    scores, values = make(rng, 9, (6, 8)).astype(np.float32), rng.random((9, 6, 8)).astype(np.float32)
    rows, columns = axes((6, 8), 16, (77, 128))
    labels, chosen = interpolated_argmax(scores, rows, columns, values)
    each = np.stack([interpolated_argmax(values[index : index + 1], rows, columns)[1] for index in range(9)])
    np.testing.assert_array_equal(labels, interpolated_argmax(scores, rows, columns)[0])
    np.testing.assert_array_equal(chosen, np.take_along_axis(each, labels[None].astype(int), 0)[0])


@pytest.mark.parametrize('make', [smooth, noise, tied])
def test_pieces_do_not_show(make, monkeypatch):
    scores = make(np.random.default_rng(6), 19, (6, 8)).astype(np.float32)
    expected = interpolated_argmax(scores, *axes((6, 8), 16, (77, 128)))
    monkeypatch.setattr(interpolated_argmax_module, 'CANVAS_PIXELS', 1000)
    monkeypatch.setattr(interpolated_argmax_module, 'SCORES_AT_ONCE', 50)
    for one, other in zip(interpolated_argmax(scores, *axes((6, 8), 16, (77, 128))), expected):
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
    tracemalloc.start()
    try:
        interpolated_argmax(scores, rows, columns)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150 * 256 * 256 * 4 / 3
