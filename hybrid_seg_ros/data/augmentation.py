"""Random resize, crop, flip and photometric distortion, with mmseg's ranges."""

from __future__ import annotations

import cv2
import numpy as np

from hybrid_seg_ros.data.segmentation_dataset import Sample
from hybrid_seg_ros.label_space import UNLABELLED

MAX_CLASS_SHARE = 0.75
CROP_TRIES = 10


def augment(
    sample: Sample, rng: np.random.Generator, crop_hw: tuple[int, int], scale: tuple[float, float],
    pad_color: tuple[int, int, int],
) -> Sample:  # fmt: skip
    """Return a random view of `crop_hw`; where the image does not reach, `pad_color` and unlabelled."""
    factor = rng.uniform(*scale)
    size_wh = tuple(max(1, round(side * factor)) for side in sample.labels.shape[::-1])
    image = cv2.resize(sample.image, size_wh, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(sample.labels, size_wh, interpolation=cv2.INTER_NEAREST)
    image, labels = random_crop(image, labels, rng, crop_hw)
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    image = photometric_distortion(image, rng)
    canvas = np.empty((*crop_hw, 3), np.uint8)
    canvas[:] = pad_color
    target = np.full(crop_hw, UNLABELLED, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    target[: labels.shape[0], : labels.shape[1]] = labels
    return Sample(sample.name, canvas, target)


def random_crop(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator, crop_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Crop to at most `crop_hw`; tries to avoid crops that one class fills by more than 75 %."""
    spare = [max(side - crop, 0) for side, crop in zip(labels.shape, crop_hw)]
    for _ in range(CROP_TRIES):
        top, left = (int(rng.integers(0, room + 1)) for room in spare)
        area = (slice(top, top + crop_hw[0]), slice(left, left + crop_hw[1]))
        counts = np.bincount(labels[area].ravel(), minlength=256)[:UNLABELLED]
        if np.count_nonzero(counts) > 1 and counts.max() < MAX_CLASS_SHARE * counts.sum():
            break
    return image[area], labels[area]


def photometric_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue of an RGB image (H, W, 3) uint8, each with probability 1/2."""
    alpha = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    beta = rng.uniform(-32, 32) if rng.random() < 0.5 else 0.0
    image = cv2.convertScaleAbs(np.ascontiguousarray(image), alpha=alpha, beta=beta) if alpha != 1 or beta else image
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = int(rng.integers(-18, 19)) if rng.random() < 0.5 else 0
    if saturation == 1.0 and hue == 0:
        return image
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + hue) % 180
    hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=saturation)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
