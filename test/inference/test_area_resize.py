"""Shrinking by matrix products gives OpenCV's pixels."""

import cv2
import numpy as np
import pytest

from hybrid_seg_ros.inference import area_resize
from hybrid_seg_ros.inference.area_resize import shrink_by_area


def noise(height, width, levels=256):
    return np.random.default_rng(height * width).integers(0, levels, (height, width, 3), np.uint8)


def by_opencv(image, size_hw):
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(
    ('image_hw', 'size_hw', 'is_ours'),
    [
        ((720, 1280), (288, 512), True),
        ((1080, 1920), (288, 512), True),
        ((1200, 1920), (320, 512), True),
        ((480, 640), (384, 512), True),
        ((360, 640), (288, 512), True),
        ((600, 800), (360, 480), True),
        ((15, 35), (8, 20), True),  # 15 to 8, and 7 to 4
        ((5, 5), (2, 2), True),
        ((25, 15), (10, 6), True),
        ((13, 75), (11, 20), True),
        ((9, 9), (3, 3), False),
        ((720, 1280), (360, 512), False),
        ((480, 848), (290, 512), False),
        ((100, 50), (40, 50), False),
        ((10, 50), (20, 20), False),
    ],
)
def test_every_pixel_is_opencv_s(image_hw, size_hw, is_ours, monkeypatch):
    for image in (noise(*image_hw), noise(*image_hw, levels=2) * np.uint8(255)):
        expected = by_opencv(image, size_hw)
        with monkeypatch.context() as context:
            if is_ours:
                context.delattr(area_resize.cv2, 'resize')
            assert np.array_equal(shrink_by_area(image, size_hw), expected)


@pytest.mark.parametrize('limit', ['_ONE_THREAD', '_VALUES_AT_ONCE'])
@pytest.mark.parametrize('value', [1, 1000, 5000])
def test_what_is_done_at_once_is_limited(limit, value, monkeypatch):
    monkeypatch.setattr(area_resize, limit, value)
    image = noise(45, 300)
    assert np.array_equal(shrink_by_area(image, (18, 80)), by_opencv(image, (18, 80)))


@pytest.mark.parametrize('turn', [lambda i: i[..., ::-1], lambda i: i[::-1], lambda i: i[:, ::-1], lambda i: i[5:, 7:]])
def test_memory_in_any_order_and_read_only(turn):
    image = noise(65, 107)
    view = turn(image)[:60, :100]
    view.flags.writeable = False
    assert np.array_equal(shrink_by_area(view, (24, 40)), by_opencv(np.ascontiguousarray(view), (24, 40)))
