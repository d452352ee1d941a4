"""Augmentation: the view's size, what lies outside, image and labels that stay together, the photometric ranges."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hybrid_seg_ros.data import augmentation
from hybrid_seg_ros.data.augmentation import augment, photometric_distortion, random_crop, resize, stretch_augment
from hybrid_seg_ros.data.segmentation_dataset import Sample


def labelled_picture(height: int, width: int) -> Sample:
    """Return a picture whose red channel shows the label times 20, in blocks of 12x12 pixels."""
    blocks = np.random.default_rng(0).integers(0, 10, (height // 12, width // 12), np.uint8)
    labels = np.kron(blocks, np.ones((12, 12), np.uint8))
    return Sample('blocks', np.dstack([labels * 20, labels * 0 + 50, labels * 0 + 50]), labels)


SAMPLE = labelled_picture(72, 96)


class Draws:
    """Answers like np.random.Generator, with what the test says: `tosses` below 0.5 mean yes."""

    def __init__(self, tosses, uniforms=(), integer=0):
        self.tosses, self.uniforms, self.integer, self.asked = iter(tosses), iter(uniforms), integer, []

    def random(self):
        return next(self.tosses)

    def uniform(self, low, high):
        self.asked.append((low, high))
        return next(self.uniforms)

    def integers(self, low, high):
        self.asked.append((low, high))
        return self.integer


@pytest.fixture
def without_distortion(monkeypatch):
    monkeypatch.setattr(augmentation, 'photometric_distortion', lambda image, rng: image)


@pytest.mark.parametrize('crop_hw', [(64, 160), (100, 40), (20, 20), (200, 300)])
def test_view_fills_the_crop_and_marks_what_has_no_label(crop_hw, without_distortion):
    for seed in range(20):
        view = augment(SAMPLE, np.random.default_rng(seed), crop_hw, (0.5, 2.0), (1, 2, 3))
        assert view.image.shape == (*crop_hw, 3) and view.labels.shape == crop_hw
        assert view.image.dtype == view.labels.dtype == np.uint8 and view.name == 'blocks'
        outside = (view.image == (1, 2, 3)).all(2)
        assert np.array_equal(outside, view.labels == 255)
        assert set(np.unique(view.labels)) <= {*range(10), 255}


def test_view_is_a_function_of_the_generator_and_leaves_the_sample_alone():
    before = SAMPLE.image.copy(), SAMPLE.labels.copy()
    views = [augment(SAMPLE, np.random.default_rng(seed), (64, 64), (0.5, 2.0), (0, 0, 0)) for seed in (3, 3, 4)]
    assert np.array_equal(views[0].image, views[1].image) and np.array_equal(views[0].labels, views[1].labels)
    assert not np.array_equal(views[0].image, views[2].image)
    stretch_augment(SAMPLE, np.random.default_rng(1), (72, 96))
    assert np.array_equal(SAMPLE.image, before[0]) and np.array_equal(SAMPLE.labels, before[1])


def agreement(image: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of labelled pixels whose colour shows their label; only edges may blend."""
    inside = labels != 255
    return float((np.abs(image[..., 0][inside].astype(int) - 20 * labels[inside]) <= 3).mean())


def test_image_and_labels_stay_together(without_distortion):
    for seed in range(20):
        view = augment(SAMPLE, np.random.default_rng(seed), (64, 64), (0.7, 2.0), (0, 0, 0))
        assert agreement(view.image, view.labels) > 0.7
    assert agreement(np.roll(SAMPLE.image, 6, axis=1), SAMPLE.labels) < 0.6, 'half a block off would be noticed'


def test_labels_are_taken_where_the_image_is():
    noise = np.random.default_rng(0).integers(0, 10, (72, 96), np.uint8)
    image, labels = resize(Sample('noise', np.dstack([noise * 20] * 3), noise), (24, 32))
    assert np.array_equal(labels, noise[1::3, 1::3]), 'of each 3x3 pixels, the one in the middle'
    assert np.array_equal(image[..., 0], 20 * labels)


@pytest.mark.parametrize(
    'size_hw, fit_sides, expected_hw',
    [
        ((72, 96), None, (72, 96)),
        ((72, 96), (36, 2048), (36, 48)),
        ((72, 96), (144, 2048), (144, 192)),
        ((96, 72), (36, 2048), (48, 36)),
        ((36, 240), (72, 240), (36, 240)),
        ((48, 240), (512, 120), (24, 120)),
    ],
)
def test_scale_is_of_the_image_or_of_what_fits(size_hw, fit_sides, expected_hw):
    sample = labelled_picture(*size_hw)
    view = augment(sample, np.random.default_rng(0), (400, 400), (1.0, 1.0), (0, 0, 0), fit_sides)
    rows, columns = np.nonzero(view.labels != 255)
    assert (rows.max() + 1, columns.max() + 1) == expected_hw


def test_scale_is_drawn_from_its_range():
    heights = []
    for seed in range(100):
        view = augment(SAMPLE, np.random.default_rng(seed), (200, 300), (0.5, 2.0), (0, 0, 0))
        heights.append(np.nonzero(view.labels != 255)[0].max() + 1)
    assert 36 <= min(heights) < 45 and 130 < max(heights) <= 144


def test_half_of_the_views_are_mirrored(without_distortion):
    views = [augment(SAMPLE, np.random.default_rng(seed), (72, 96), (1.0, 1.0), (0, 0, 0)) for seed in range(200)]
    mirrored = [np.array_equal(view.labels, SAMPLE.labels[:, ::-1]) for view in views]
    assert all(flip or np.array_equal(view.labels, SAMPLE.labels) for flip, view in zip(mirrored, views))
    assert 70 < sum(mirrored) < 130


def test_crop_avoids_what_one_class_fills():
    labels = np.zeros((40, 400), np.uint8)
    labels[:, 300:] = 1
    image = np.zeros((40, 400, 3), np.uint8)
    crops = [random_crop(image, labels, np.random.default_rng(seed), (40, 80))[1] for seed in range(100)]
    balanced = sum(0.25 < crop.mean() < 0.75 for crop in crops)
    assert balanced > 60, 'one try finds both classes with a quarter or more each in 12 % of the crops, ten in 72 %'


def test_crop_does_not_count_what_has_no_label():
    labels = np.zeros((10, 40), np.uint8)
    labels[:, :20] = 255
    labels[:5, 5], labels[5:, 5] = 0, 1
    image = np.zeros((10, 40, 3), np.uint8)
    crops = [random_crop(image, labels, np.random.default_rng(seed), (10, 10))[1] for seed in range(100)]
    assert sum((crop == 1).any() for crop in crops) > 60, 'one try finds class 1 in 19 %, ten in 88 %'


YES, NO = 0.0, 0.9


@pytest.mark.parametrize(
    'tosses, draws, pixel, expected',
    [
        # tosses: brightness, contrast first, contrast, saturation, hue
        ([NO, NO, NO, NO, NO], {}, (10, 20, 30), (10, 20, 30)),
        ([YES, NO, NO, NO, NO], {'uniforms': [32]}, (10, 20, 250), (42, 52, 255)),
        ([YES, NO, NO, NO, NO], {'uniforms': [-32]}, (10, 40, 250), (0, 8, 218)),
        ([NO, YES, YES, NO, NO], {'uniforms': [1.5]}, (10, 20, 250), (15, 30, 255)),
        ([NO, NO, YES, NO, NO], {'uniforms': [0.5]}, (10, 20, 250), (5, 10, 125)),
        ([NO, NO, NO, YES, NO], {'uniforms': [0.5]}, (200, 100, 100), (200, 150, 150)),
        ([NO, NO, NO, YES, NO], {'uniforms': [1.5]}, (200, 100, 100), (200, 50, 50)),
        ([NO, NO, NO, NO, YES], {'integer': -18}, (200, 100, 100), (200, 100, 160)),
        ([NO, NO, NO, NO, YES], {'integer': 17}, (200, 100, 100), (200, 157, 100)),
    ],
)
def test_photometric_distortion(tosses, draws, pixel, expected):
    image = np.full((4, 5, 3), pixel, np.uint8)
    changed = photometric_distortion(image, Draws(tosses, **draws))
    assert changed.shape == (4, 5, 3) and changed.dtype == np.uint8
    assert np.abs(changed[0, 0].astype(int) - expected).max() <= 2, changed[0, 0]
    assert (image == pixel).all()


def test_contrast_comes_before_or_after_the_saturation():
    image = np.full((1, 1, 3), (250, 100, 100), np.uint8)
    # before: (375 -> 255, 150, 150), then half the saturation; after: half the saturation (250, 175, 175), times 1.5
    first = photometric_distortion(image, Draws([NO, YES, YES, YES, NO], [1.5, 0.5]))
    last = photometric_distortion(image, Draws([NO, NO, YES, YES, NO], [1.5, 0.5]))
    assert np.abs(first[0, 0].astype(int) - (255, 202, 202)).max() <= 2
    assert np.abs(last[0, 0].astype(int) - (255, 255, 255)).max() <= 2


def test_photometric_ranges_are_those_of_mmsegmentation():
    draws = Draws([YES] * 5, [0.0, 1.0, 1.0])
    photometric_distortion(np.zeros((1, 1, 3), np.uint8), draws)
    assert draws.asked == [(-32, 32), (0.5, 1.5), (0.5, 1.5), (-18, 18)]


@pytest.mark.parametrize('size_hw', [(36, 48), (72, 48), (100, 100)])
def test_stretched_view_shows_the_whole_image(size_hw):
    views = [stretch_augment(SAMPLE, np.random.default_rng(seed), size_hw) for seed in range(50)]
    image, labels = resize(SAMPLE, size_hw)
    mirrored = [np.array_equal(view.labels, labels[:, ::-1]) for view in views]
    assert 10 < sum(mirrored) < 40
    for view, flip in zip(views, mirrored):
        assert view.image.shape == (*size_hw, 3)
        assert np.array_equal(view.image, cv2.flip(image, 1) if flip else image)
        assert np.array_equal(view.labels, cv2.flip(labels, 1) if flip else labels)
