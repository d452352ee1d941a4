"""mmsegmentation's standard augmentation for segmenters, and the one that CTS trains its policy network with."""

from __future__ import annotations

from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.data.segmentation_dataset import Sample
from hybrid_seg_ros.label_space import UNLABELLED

MAX_CLASS_SHARE = 0.75
CROP_TRIES = 10
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32, (0.5, 1.5), (0.5, 1.5), 18
"""Photometric ranges; hue in OpenCV's unit of 2 degrees."""

_LEVELS = np.arange(256, dtype=np.float32)


def augment(
    sample: Sample, rng: np.random.Generator, crop_hw: tuple[int, int], scale: tuple[float, float],
    pad_color: tuple[int, int, int], fit_sides: Optional[tuple[int, int]] = None,
) -> Sample:  # fmt: skip
    """Return a random view of `crop_hw`; where the image does not reach, `pad_color` and unlabelled.

    The image is resized by a factor drawn from `scale`: of its own size or, with `fit_sides` (short, long), of the
    largest size of its aspect whose sides do not exceed these. ADE20K is trained with (512, 2048), the others as is.
    """
    factor = rng.uniform(*scale)
    if fit_sides is not None:
        short, long = sorted(sample.labels.shape)
        factor *= min(fit_sides[0] / short, fit_sides[1] / long)
    image, labels = resize(sample, tuple(max(1, round(side * factor)) for side in sample.labels.shape))
    image, labels = random_crop(image, labels, rng, crop_hw)
    image, labels = random_flip(image, labels, rng)
    image = photometric_distortion(image, rng)
    bottom, right = (crop - side for crop, side in zip(crop_hw, labels.shape))
    image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=pad_color)
    labels = cv2.copyMakeBorder(labels, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=UNLABELLED)
    return Sample(sample.name, image, labels)


def stretch_augment(sample: Sample, rng: np.random.Generator, size_hw: tuple[int, int]) -> Sample:
    """Return the whole image at `size_hw`, its aspect not kept, flipped with probability 1/2 (CTS, policy network)."""
    return Sample(sample.name, *random_flip(*resize(sample, size_hw), rng))


def resize(sample: Sample, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return image (bilinear) and labels (nearest) at `size_hw`."""
    size_wh = size_hw[::-1]
    image = cv2.resize(sample.image, size_wh, interpolation=cv2.INTER_LINEAR)
    # INTER_NEAREST would take the pixel left of and above the one that the bilinear image is centred on
    return image, cv2.resize(sample.labels, size_wh, interpolation=cv2.INTER_NEAREST_EXACT)


def random_crop(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator, crop_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Crop to at most `crop_hw`; tries to avoid crops that one class fills by more than 75 %."""
    spare = [max(side - crop, 0) for side, crop in zip(labels.shape, crop_hw)]
    for _ in range(CROP_TRIES if any(spare) else 1):
        top, left = (int(rng.integers(0, room + 1)) for room in spare)
        area = (slice(top, top + crop_hw[0]), slice(left, left + crop_hw[1]))
        counts = cv2.calcHist([labels[area]], [0], None, [256], [0, 256])[:UNLABELLED]
        if np.count_nonzero(counts) > 1 and counts.max() < MAX_CLASS_SHARE * counts.sum():
            break
    return image[area], labels[area]


def random_flip(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mirror left and right with probability 1/2."""
    return (cv2.flip(image, 1), cv2.flip(labels, 1)) if rng.random() < 0.5 else (image, labels)


def photometric_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue of an RGB image (H, W, 3) uint8, each with probability 1/2.

    Brightness comes first; contrast, by the toss of a coin, before or after saturation and hue. What leaves 0 to 255
    is clipped after each step.
    """
    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS) if rng.random() < 0.5 else 0.0
    contrast_first = rng.random() < 0.5
    contrast = rng.uniform(*CONTRAST) if rng.random() < 0.5 else 1.0
    saturation = rng.uniform(*SATURATION) if rng.random() < 0.5 else 1.0
    hue = int(rng.integers(-HUE, HUE)) if rng.random() < 0.5 else 0
    if brightness != 0.0 or (contrast_first and contrast != 1.0):
        brightened = _to_levels(_LEVELS + brightness)
        image = cv2.LUT(image, _to_levels(brightened * np.float32(contrast)) if contrast_first else brightened)
    if saturation != 1.0 or hue != 0:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        tables = [(_LEVELS + hue) % 180, _LEVELS * np.float32(saturation), _LEVELS]
        hsv = cv2.LUT(hsv, np.stack([_to_levels(table) for table in tables], axis=-1)[None])
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image if contrast_first or contrast == 1.0 else cv2.LUT(image, _to_levels(_LEVELS * np.float32(contrast)))


def _to_levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
