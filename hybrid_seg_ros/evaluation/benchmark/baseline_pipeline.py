"""BaselinePipeline: preprocess, network, postprocess around what a benchmark is compared with. Without PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from hybrid_seg_ros.inference.preprocess import FrameGeometry, check_image, fit_geometry, preprocess
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.process_memory import keep_freed_memory
from hybrid_seg_ros.segmentation import Segmentation, StageTimings, TokenReport

Complete = Callable[[Any, FrameGeometry], tuple[np.ndarray, np.ndarray, TokenReport]]
"""Makes labels (H, W) uint8 and confidence (H, W) float32 of a frame, and its token report, of a network's output."""

DenseGraph = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Images (1, H, W, 3) uint8 of the network's size to labels (1, H, W) uint8 and confidence (1, H, W) float32."""


class BaselinePipeline:
    """The same three timed steps as SegmentationPipeline, on whole frames, around another network."""

    def __init__(
        self, spec: ModelSpec, network: Callable[[np.ndarray], Any], complete: Complete, device_name: str
    ) -> None:
        """`network` takes images (1, H, W, 3) uint8 of its size."""
        if spec.inference != 'whole':
            raise ValueError(f'{spec.name}: expected inference whole, got {spec.inference}')
        keep_freed_memory()  # as load_pipeline does: what came from memory would be no fair gain
        self.spec, self.device_name = spec, device_name
        self._network, self._complete = network, complete

    def __call__(self, image: np.ndarray) -> Segmentation:
        """Segment an RGB image (H, W, 3) uint8."""
        check_image(image)
        times = [time.perf_counter()]
        geometry = fit_geometry(image.shape[:2], self.spec)
        network_input = preprocess(image, geometry, self.spec)
        times.append(time.perf_counter())
        output = self._network(network_input[None])
        times.append(time.perf_counter())
        labels, confidence, tokens = self._complete(output, geometry)
        times.append(time.perf_counter())
        laps_ms = [(end - start) * 1e3 for start, end in zip(times, times[1:])]
        return Segmentation(labels, confidence, tokens, StageTimings(*laps_ms))

    def close(self) -> None:
        """Free the network."""
        self._network = self._complete = None


def dense_pipeline(spec: ModelSpec, graph: DenseGraph, device_name: str) -> BaselinePipeline:
    """Return a pipeline around the dense model as one graph from image to label map.

    An image of another size than the network's gets that label map resized: labels by nearest neighbour. This is less
    exact than to upsample scores to the image's own size, and takes less time.
    """
    grid_hw = spec.backbone.grid_hw(spec.input_size_hw)
    alone, never = np.ones(grid_hw, np.uint8), np.zeros(grid_hw, np.uint8)
    tokens = TokenReport(grid_hw, alone, never, grid_hw[0] * grid_hw[1])

    def complete(
        output: tuple[np.ndarray, np.ndarray], geometry: FrameGeometry
    ) -> tuple[np.ndarray, np.ndarray, TokenReport]:
        labels, confidence = output
        return (_to_image(labels[0], geometry, cv2.INTER_NEAREST), _to_image(confidence[0], geometry, cv2.INTER_LINEAR),
                tokens)  # fmt: skip

    return BaselinePipeline(spec, graph, complete, device_name)


def _to_image(values: np.ndarray, geometry: FrameGeometry, interpolation: int) -> np.ndarray:
    """Cut off the padding of (H, W), and resize the rest to the image."""
    values = values[: geometry.content_hw[0], : geometry.content_hw[1]]
    if geometry.content_hw == geometry.image_hw:
        return values
    return cv2.resize(values, geometry.image_hw[::-1], interpolation=interpolation)
