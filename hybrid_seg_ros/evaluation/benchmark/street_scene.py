"""A made-up street: an image to time a model on where there is no other."""

from __future__ import annotations

import cv2
import numpy as np

SKY, ROAD, PAVEMENT, LINE = (168, 196, 226), (92, 92, 96), (140, 134, 128), (214, 212, 204)
WALLS = ((156, 96, 78), (186, 170, 144), (120, 112, 110), (204, 190, 170))
TREE, WINDOW, WHEEL = (58, 92, 46), (62, 74, 90), (24, 24, 26)
CARS = ((150, 26, 30), (30, 56, 120), (196, 198, 202))
GRAIN = 7.0
"""Standard deviation of the noise, in grey levels: that of a small camera by day."""


def street_scene(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Draw sky, houses, trees, a road and cars as RGB (H, W, 3) uint8; the same seed gives the same street.

    As in a street camera's image, most windows of 32x32 pixels show one surface, and some show an edge.
    """
    height, width = size_hw
    random = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = SKY
    horizon = round(height * random.uniform(0.42, 0.5))
    left = 0
    while left < width:
        right = left + max(8, round(width * random.uniform(0.12, 0.28)))
        roof = round(horizon * random.uniform(0.2, 0.75))
        _draw_house(image, (left, roof, right, horizon), WALLS[random.integers(len(WALLS))])
        left = right
    vanishing = (round(width * random.uniform(0.4, 0.6)), horizon)
    cv2.rectangle(image, (0, horizon), (width, height), PAVEMENT, -1)
    _fill(image, ROAD, vanishing, (round(-0.2 * width), height), (round(1.2 * width), height))
    for first, last in ((0.15, 0.25), (0.4, 0.55), (0.75, 1.0)):
        _fill(image, LINE, *(_along(vanishing, (round(share * width), height), at)
                             for at in (first, last) for share in (0.49, 0.51)))  # fmt: skip
    for _ in range(4):
        foot = (round(width * random.uniform(0, 1)), horizon + round(height * random.uniform(0.0, 0.06)))
        crown = max(4, round(height * random.uniform(0.06, 0.13)))
        cv2.line(image, foot, (foot[0], foot[1] - 2 * crown), WHEEL, max(1, crown // 6))
        cv2.circle(image, (foot[0], foot[1] - 2 * crown), crown, TREE, -1)
    for near in np.sort(random.uniform(0.1, 0.7, 3)):
        _draw_car(image, random.uniform(0.1, 0.9), near, horizon, CARS[random.integers(len(CARS))])
    shade = np.linspace(1.06, 0.9, height)[:, None, None]
    noise = random.normal(0.0, GRAIN, (height, width, 1))
    return np.clip(image * shade + noise, 0, 255).astype(np.uint8)


def _draw_house(image: np.ndarray, box: tuple[int, int, int, int], color: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    cv2.rectangle(image, (left, top), (right, bottom), color, -1)
    step = max(12, image.shape[0] // 12)
    for y in range(top + step // 2, bottom - step // 2, step):
        for x in range(left + step // 2, right - step // 2, step):
            cv2.rectangle(image, (x, y), (x + step // 3, y + step // 2), WINDOW, -1)


def _draw_car(image: np.ndarray, across: float, near: float, horizon: int, color: tuple[int, int, int]) -> None:
    height, width = image.shape[:2]
    bottom = horizon + round(near * (height - horizon))
    high = max(3, round(0.28 * near * (height - horizon)))
    left = round(across * width)
    cv2.rectangle(image, (left, bottom - high), (left + 2 * high, bottom), color, -1)
    cv2.rectangle(image, (left + high // 2, bottom - 2 * high), (left + 3 * high // 2, bottom - high), WINDOW, -1)
    for x in (left + high // 2, left + 3 * high // 2):
        cv2.circle(image, (x, bottom), max(1, high // 3), WHEEL, -1)


def _along(start: tuple[int, int], end: tuple[int, int], share: float) -> tuple[int, int]:
    return (round(start[0] + share * (end[0] - start[0])), round(start[1] + share * (end[1] - start[1])))


def _fill(image: np.ndarray, color: tuple[int, int, int], *corners: tuple[int, int]) -> None:
    cv2.fillConvexPoly(image, cv2.convexHull(np.array(corners, np.int32)), color)
