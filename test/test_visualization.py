"""Overlay, token map and legends."""

import subprocess
import sys

import numpy as np
import pytest

from hybrid_seg_ros.label_space import UNLABELLED, LabelSpace
from hybrid_seg_ros.segmentation import TokenReport
from hybrid_seg_ros.visualization import (
    MERGED_COLOR,
    SINGLE_COLOR,
    class_legend,
    draw_legend,
    draw_overlay,
    draw_token_map,
    fit_image,
    token_legend,
)

CLASSES = LabelSpace(('sky', 'road'), ((200, 0, 0), (0, 0, 100)))
GREY = np.full((60, 80, 3), 120, np.uint8)


def report(window_size, pruned_after_layer=None, kept=(), areas=()):
    """Build a report from (gh, gw) lists; the counts are made up."""
    window = np.array(window_size, np.uint8)
    pruned = np.zeros_like(window) if pruned_after_layer is None else np.array(pruned_after_layer, np.uint8)
    return TokenReport(window.shape, window, pruned, window.size, kept, areas)


def centres(picture, rows, columns):
    """Return the colour in the middle of each cell: (rows, columns, 3)."""
    height, width = picture.shape[:2]
    return picture[height // rows // 2 :: height // rows, width // columns // 2 :: width // columns]


@pytest.mark.parametrize(('alpha', 'sky'), [(0.0, (120, 120, 120)), (0.5, (160, 60, 60)), (1.0, (200, 0, 0))])
def test_overlay_blends_but_not_where_nothing_is_labelled(alpha, sky):
    labels = np.zeros((60, 80), np.uint8)
    labels[30:] = UNLABELLED
    overlay = draw_overlay(GREY, labels, CLASSES, alpha)
    assert overlay.shape == (60, 80, 3) and overlay.dtype == np.uint8
    assert (overlay[:30] == sky).all() and (overlay[30:] == 120).all()
    assert (GREY == 120).all()


def test_overlay_has_the_size_of_the_labels():
    assert draw_overlay(GREY, np.ones((30, 40), np.uint8), CLASSES, 0.5).shape == (30, 40, 3)


@pytest.mark.parametrize('alpha', [-0.1, 1.1])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match='from 0 to 1'):
        draw_overlay(GREY, np.zeros((60, 80), np.uint8), CLASSES, alpha)


def test_merged_windows_are_blue_and_single_tokens_red():
    token_map = draw_token_map(GREY, report([[2, 2, 1, 1], [2, 2, 1, 1]]), (60, 80))
    cells = centres(token_map, 2, 4).astype(int)
    assert (cells[:, :2, 2] > cells[:, :2, 0] + 30).all()
    assert (cells[:, 2:, 0] > cells[:, 2:, 2] + 30).all()
    assert tuple(token_map[0, 10]) == MERGED_COLOR and tuple(token_map[0, 50]) == SINGLE_COLOR
    assert (token_map[30, 5:15] != MERGED_COLOR).any(1).all(), 'no line inside a merged window'
    assert (token_map[30, 45:55] == SINGLE_COLOR).all(), 'a line between single tokens'


def test_neighbouring_merged_windows_are_told_apart():
    token_map = draw_token_map(GREY, report([[2, 2, 2, 2], [2, 2, 2, 2]]), (60, 80))
    assert (token_map[5:55, 40] == MERGED_COLOR).all()
    assert (token_map[5:25, 20] != MERGED_COLOR).any(1).all()


@pytest.mark.parametrize('brightness', [10, 120, 245])
def test_pruned_tokens_are_black_and_their_layers_told_apart(brightness):
    image = np.full((60, 80, 3), brightness, np.uint8)
    tokens = report([[1, 1, 1, 1]], [[6, 8, 0, 0]], kept=((6, 3), (8, 2)))
    first, second, stays = (centres(draw_token_map(image, tokens, (60, 80)), 1, 4)[0, :3].astype(int))
    assert first.max() < 45 and np.ptp(first) == np.ptp(second) == 0
    assert second[0] >= first[0] + 30 and second.max() < 110
    assert np.ptp(stays) > 30


def test_one_pruning_layer_is_black():
    tokens = report([[1, 1]], [[8, 0]], kept=((8, 1),))
    assert centres(draw_token_map(GREY, tokens, (60, 80)), 1, 2)[0, 0].max() < 45


def test_grid_on_padding_is_left_out():
    tokens = report(np.ones((4, 4)), [[0] * 4, [0] * 4, [8] * 4, [8] * 4], ((8, 8),), ((0.0, 0.0, 120.0, 80.0),))
    token_map = draw_token_map(GREY, tokens, (60, 80))
    assert token_map.shape == (60, 80, 3)
    assert (centres(token_map, 2, 4)[..., 0] > 100).all(), 'the pruned rows lie below the image'


def test_crops_are_drawn_where_they_lie():
    left, right = (0.0, 0.0, 60.0, 40.0), (0.0, 40.0, 60.0, 40.0)
    tokens = report([[2, 2], [2, 2], [1, 1], [1, 1]], areas=(left, right))
    cells = centres(draw_token_map(GREY, tokens, (60, 80)), 2, 4).astype(int)
    assert (cells[:, :2, 2] > cells[:, :2, 0]).all() and (cells[:, 2:, 0] > cells[:, 2:, 2]).all()


def test_token_map_of_another_size_than_the_image():
    assert draw_token_map(GREY, report(np.ones((3, 5))), (33, 47)).shape == (33, 47, 3)


def test_legends():
    tokens = report([[2, 2, 1, 1], [2, 2, 1, 1]], kept=((6, 4), (8, 3)))
    assert token_legend(tokens).shape[0] == 4 * class_legend(CLASSES).shape[0] // 2
    picture = draw_legend([('road', (10, 20, 30))], width=100, row_height=20)
    assert picture.shape == (20, 100, 3) and tuple(picture[10, 14]) == (10, 20, 30)


@pytest.mark.parametrize('image', [GREY.astype(float), GREY[..., 0], GREY[..., :2]])
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match='expected an RGB image'):
        fit_image(image, (60, 80))


def test_it_needs_neither_ros_nor_pytorch():
    code = 'import hybrid_seg_ros.visualization, sys; sys.exit("rclpy" in sys.modules or "torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
