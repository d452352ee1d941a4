"""Image to network input: resize, pad, and remember the geometry."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hybrid_seg_ros.model_spec import ModelSpec


@dataclass(frozen=True)
class FrameGeometry:
    """How an image lies in the network's input: scaled to `content_hw`, at the top left of `network_hw`."""

    image_hw: tuple[int, int]
    content_hw: tuple[int, int]
    network_hw: tuple[int, int]

    def area(self, grid_hw: tuple[int, int], patch_size: int) -> tuple[float, float, float, float]:
        """Return (top, left, height, width), in image pixels, that the patch grid covers."""
        return (
            0.0,
            0.0,
            grid_hw[0] * patch_size * self.image_hw[0] / self.content_hw[0],
            grid_hw[1] * patch_size * self.image_hw[1] / self.content_hw[1],
        )


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless `image` is RGB (H, W, 3) uint8 with at least two pixels."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f'expected an RGB image as a NumPy array (H, W, 3) uint8, got {type(image).__name__}')
    if image.dtype != np.uint8:
        raise ValueError(f'expected an RGB image (H, W, 3) uint8, got dtype {image.dtype}')
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'expected an RGB image (H, W, 3) uint8, got shape {image.shape}')
    if image.shape[0] * image.shape[1] < 2:  # OpenCV 4.5 cannot take one pixel
        raise ValueError(f'expected an RGB image with at least two pixels, got shape {image.shape}')


def check_images(images: np.ndarray) -> None:
    """Raise ValueError unless `images` are RGB (B, H, W, 3) uint8."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        got = f'{images.shape} {images.dtype}' if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f'expected RGB images (B, H, W, 3) uint8, got {got}')
    if 0 in images.shape:
        raise ValueError(f'expected at least one image of at least one pixel, got {images.shape}')


def fit_geometry(image_hw: tuple[int, int], spec: ModelSpec) -> FrameGeometry:
    """Return where an image goes in the network's input: whole ('stretch') or with its aspect kept ('letterbox')."""
    network_hw = spec.input_size_hw
    if spec.resize == 'stretch':
        return FrameGeometry(image_hw, network_hw, network_hw)
    scale = min(network_hw[0] / image_hw[0], network_hw[1] / image_hw[1])
    content = tuple(max(1, min(side, round(length * scale))) for length, side in zip(image_hw, network_hw))
    return FrameGeometry(image_hw, (content[0], content[1]), network_hw)


def preprocess(image: np.ndarray, geometry: FrameGeometry, spec: ModelSpec) -> np.ndarray:
    """Return the network's input (H, W, 3) uint8; padding has the model's mean colour."""
    content = resize_image(image, geometry.content_hw)
    if geometry.content_hw == geometry.network_hw:
        return content
    below, right = (whole - part for whole, part in zip(geometry.network_hw, geometry.content_hw))
    mean = [round(value) for value in spec.mean]  # NumPy takes 50 times as long to fill in a colour
    return cv2.copyMakeBorder(content, 0, below, 0, right, cv2.BORDER_CONSTANT, value=mean)


def resize_image(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8, averaging when it shrinks."""
    if image.shape[:2] == tuple(size_hw):
        return image
    shrinks = size_hw[0] * size_hw[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
