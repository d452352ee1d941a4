"""Overlay, token map and legends."""

import subprocess
import sys

import numpy as np
import pytest

from hybrid_seg_ros.label_space import UNLABELLED, LabelSpace
from hybrid_seg_ros.segmentation import TokenReport
from hybrid_seg_ros.visualization import (
    MERGED_COLORS,
    SINGLE_COLOR,
    TitledPicture,
    add_class_legend,
    class_legend,
    draw_legend,
    draw_overlay,
    draw_sheet,
    draw_token_map,
    fit_image,
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


def test_windows_are_counted_and_coloured_by_their_size():
    """Two crops of a sliding window among them: their grids lie one above the other."""
    crop = np.ones((8, 12), np.uint8)
    crop[:, :8], crop[:4, 8:] = 8, 4
    crop[4:6, 8:10] = 2
    tokens = report(np.concatenate([crop, crop]).tolist(), areas=((0, 0, 60, 40), (0, 40, 60, 40)))
    assert tokens.windows == {8: 2, 4: 2, 2: 2} and tokens.merged_windows == 6
    assert report([[1, 1]]).windows == {} and report([[1, 1]]).merged_windows == 0
    large = report(crop.tolist())
    token_map = draw_token_map(np.full((160, 240, 3), 120, np.uint8), large, (160, 240))
    for corner, side in (((0, 0), 8), ((0, 160), 4), ((80, 160), 2)):
        assert tuple(token_map[corner]) == MERGED_COLORS[side], 'outlines have the full colour'


def test_merged_windows_are_blue_and_single_tokens_red():
    token_map = draw_token_map(GREY, report([[2, 2, 1, 1], [2, 2, 1, 1]]), (60, 80))
    cells = centres(token_map, 2, 4).astype(int)
    assert (cells[:, :2, 2] > cells[:, :2, 0] + 30).all()
    assert (cells[:, 2:, 0] > cells[:, 2:, 2] + 30).all()
    assert tuple(token_map[0, 10]) == MERGED_COLORS[2] and tuple(token_map[0, 50]) == SINGLE_COLOR
    assert (token_map[30, 5:15] != MERGED_COLORS[2]).any(1).all(), 'no line inside a merged window'
    assert (token_map[30, 45:55] == SINGLE_COLOR).all(), 'a line between single tokens'


def test_neighbouring_merged_windows_are_told_apart():
    token_map = draw_token_map(GREY, report([[2, 2, 2, 2], [2, 2, 2, 2]]), (60, 80))
    assert (token_map[5:55, 40] == MERGED_COLORS[2]).all()
    assert (token_map[5:25, 20] != MERGED_COLORS[2]).any(1).all()


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
    assert class_legend(CLASSES).shape == (2 * 22, 240, 3)
    picture = draw_legend([('road', (10, 20, 30))], width=100, row_height=20)
    assert picture.shape == (20, 100, 3) and tuple(picture[10, 14]) == (10, 20, 30)


def names(count):
    red, green = (250, 10, 10), (10, 250, 10)
    return LabelSpace(tuple(f'class {index}' for index in range(count)), (red,) * (count - 1) + (green,))


def bands(*ids):
    """Return a label map (384, 512) of equally high bands, one per id."""
    return np.repeat(np.array(ids, np.uint8), 384 // len(ids)).repeat(512).reshape(-1, 512)


@pytest.mark.parametrize(
    ('ids', 'red', 'green'), [((0,), 1, 0), ((0, 255), 1, 0), ((3, 0, 1, 3), 2, 1), ((255,), 0, 0), ((77, 255), 0, 0)]
)
def test_the_legend_has_a_square_for_each_class_in_the_labels_in_the_order_of_their_ids(ids, red, green):
    picture = np.full((384, 512, 3), 200, np.uint8)
    result = add_class_legend(picture, bands(*ids), names(4))
    assert (picture == 200).all() and result.shape == picture.shape
    square = [(result == color).all(2).any(1) for color in ((250, 10, 10), (10, 250, 10))]
    starts = [np.flatnonzero(np.diff(rows.astype(int)) == 1) for rows in square]
    assert (len(starts[0]), len(starts[1])) == (red, green)
    assert not (red and green) or starts[0].max() < starts[1].min(), 'the last class comes last'
    changed = np.argwhere((result != 200).any(2))
    assert (changed.size > 0) == (red + green > 0)
    assert len(changed) == 0 or (changed.max(0) < (16 * (red + green) + 8, 120)).all(), 'no larger than it needs'
    text = (result[:, 15:] > 205).all(2).sum()
    assert 20 * (red + green) <= text <= 120 * (red + green), 'white text on a darkened ground'


def test_what_does_not_fit_into_the_legend_is_counted():
    labels = np.zeros((48, 64), np.uint8)
    labels[:, :40].flat = np.arange(40 * 48) % 40
    labels[0, 63] = 40
    few, many, more = (add_class_legend(np.full((48, 64, 3), 200, np.uint8), labels, names(n)) for n in (3, 40, 41))
    third_row = slice(27, 33)
    assert (few[third_row] == (10, 250, 10)).all(2).any(), 'the third of three classes'
    for color in ((250, 10, 10), (10, 250, 10)):
        assert not (many[third_row] == color).all(2).any(), 'how many more there are'
    assert (many[:24] == more[:24]).all() and (many[24:] != more[24:]).any(), 'one pixel of a class counts'


@pytest.mark.parametrize('size_hw', [(1, 2), (10, 200), (96, 128), (1500, 8)])
def test_a_legend_fits_into_every_size(size_hw):
    labels = (np.arange(size_hw[0] * size_hw[1]) % 40).reshape(size_hw).astype(np.uint8)
    assert add_class_legend(np.zeros((*size_hw, 3), np.uint8), labels, names(40)).shape == (*size_hw, 3)


def test_a_picture_that_gets_narrower_alone_is_averaged():
    stripes = np.zeros((4, 64, 3), np.uint8)
    stripes[:, ::4] = 200
    assert (fit_image(stripes, (4, 16)) == 50).all()


@pytest.mark.parametrize('image', [GREY.astype(float), GREY[..., 0], GREY[..., :2]])
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match='expected an RGB image'):
        fit_image(image, (60, 80))


def test_sheet_of_pictures():
    black, wide = np.zeros((10, 20, 3), np.uint8), np.zeros((5, 40, 3), np.uint8)
    sheet = draw_sheet([[TitledPicture('a', black), TitledPicture('b' * 99, wide)], [TitledPicture('', black)]], 40)
    assert sheet.shape == (24 + 20 + 6 + 20 + 6, 40 + 6 + 40, 3) and sheet.dtype == np.uint8
    assert (sheet[24:44, :40] == 0).all() and (sheet[24:29, 46:] == 0).all() and (sheet[50:, 46:] == 255).all()
    with pytest.raises(ValueError, match='at least one picture in each row'):
        draw_sheet([[]], 40)


def test_it_needs_neither_ros_nor_pytorch():
    code = 'import hybrid_seg_ros.visualization, sys; sys.exit("rclpy" in sys.modules or "torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
