"""How an image lies in the network's input."""

import numpy as np
import pytest
from tiny_model import tiny_spec

from hybrid_seg_ros.inference.preprocess import check_image, fit_geometry, preprocess, resize_image


def picture(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, 0 * rows + 9], 2).astype(np.uint8)


@pytest.mark.parametrize(
    ('resize', 'image_hw', 'content_hw'),
    [
        ('letterbox', (96, 128), (96, 128)),
        ('letterbox', (192, 256), (96, 128)),
        ('letterbox', (48, 64), (96, 128)),
        ('letterbox', (100, 77), (96, 74)),
        ('letterbox', (720, 1280), (72, 128)),
        ('letterbox', (1, 4000), (1, 128)),
        ('letterbox', (4000, 1), (96, 1)),
        ('stretch', (100, 77), (96, 128)),
        ('stretch', (1, 2), (96, 128)),
    ],
)
def test_geometry_and_padding(resize, image_hw, content_hw):
    spec = tiny_spec(resize=resize, mean=(10.2, 20.7, 30.0))
    geometry = fit_geometry(image_hw, spec)
    assert geometry.content_hw == content_hw and geometry.network_hw == (96, 128)
    image = picture(*image_hw)
    result = preprocess(image, geometry, spec)
    assert result.shape == (96, 128, 3) and result.dtype == np.uint8
    assert np.array_equal(result[: content_hw[0], : content_hw[1]], resize_image(image, content_hw))
    outside = np.ones((96, 128), bool)
    outside[: content_hw[0], : content_hw[1]] = False
    assert np.all(result[outside] == [10, 21, 30])


def test_an_image_of_the_network_s_size_is_passed_on():
    image = picture(96, 128)
    assert np.array_equal(preprocess(image, fit_geometry((96, 128), tiny_spec()), tiny_spec()), image)


def test_shrinking_averages():
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    small = resize_image(np.repeat(checker[:, :, None], 3, 2).astype(np.uint8), (32, 32))
    assert abs(small.astype(int) - 127).max() <= 1


@pytest.mark.parametrize('turn', [lambda i: i[..., ::-1], lambda i: i[::-1], lambda i: i[:, ::-1], lambda i: i[3:, 5:]])
def test_views_without_contiguous_memory(turn):
    image = turn(picture(60, 90))
    geometry = fit_geometry(image.shape[:2], tiny_spec())
    expected = preprocess(np.ascontiguousarray(image), geometry, tiny_spec())
    image.flags.writeable = False
    assert np.array_equal(preprocess(image, geometry, tiny_spec()), expected)


def test_area_of_the_grid_on_the_image():
    geometry = fit_geometry((200, 154), tiny_spec())  # scaled by 0.48: content 96x74
    top, left, height, width = geometry.area((6, 8), 16)
    assert (top, left, height) == (0, 0, 200) and width == pytest.approx(128 * 154 / 74)


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((4, 5, 3), np.float32), 'uint8, got dtype float32'),
        (np.zeros((4, 5, 3), np.int8), 'got dtype int8'),
        (np.zeros((4, 5), np.uint8), r'\(H, W, 3\) uint8, got shape \(4, 5\)'),
        (np.zeros((4, 5, 4), np.uint8), r'got shape \(4, 5, 4\)'),
        (np.zeros((1, 4, 5, 3), np.uint8), r'got shape \(1, 4, 5, 3\)'),
        (np.zeros((1, 1, 3), np.uint8), 'at least two pixels'),
        (np.zeros((4, 0, 3), np.uint8), 'at least two pixels'),
        ([[[0, 0, 0]]], 'NumPy array .* got list'),
        (None, 'got NoneType'),
    ],
)
def test_what_is_no_image(image, message):
    with pytest.raises(ValueError, match=message):
        check_image(image)
