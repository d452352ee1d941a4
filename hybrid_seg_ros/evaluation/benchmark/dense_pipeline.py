"""DensePipeline: the dense model as one graph from image to label map, the way it is commonly deployed.

Nothing here imports PyTorch, so that an exported graph runs, and its memory is measured, without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from hybrid_seg_ros.inference.preprocess import FrameGeometry, check_image, fit_geometry, preprocess
from hybrid_seg_ros.inference.process_memory import keep_freed_memory
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.segmentation import Segmentation, StageTimings, TokenReport

DenseGraph = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Images (1, H, W, 3) uint8 of the network's size to labels (1, H, W) uint8 and confidence (1, H, W) float32."""


class DensePipeline:
    """The same three steps as SegmentationPipeline, on whole frames, around a graph that ends in a label map.

    An image of another size than the network's gets that label map resized: labels by nearest neighbour. This is less
    exact than to upsample scores to the image's own size, and takes less time.
    """

    def __init__(self, spec: ModelSpec, graph: DenseGraph, device_name: str) -> None:
        if spec.inference != 'whole':
            raise ValueError(f'{spec.name}: expected inference whole, got {spec.inference}')
        keep_freed_memory()  # as load_pipeline does: what came from memory would be no fair gain
        self.spec, self.device_name = spec, device_name
        self._graph = graph
        grid_hw = spec.backbone.grid_hw(spec.input_size_hw)
        alone, never = np.ones(grid_hw, np.uint8), np.zeros(grid_hw, np.uint8)
        self._tokens = TokenReport(grid_hw, alone, never, grid_hw[0] * grid_hw[1])

    def __call__(self, image: np.ndarray) -> Segmentation:
        """Segment an RGB image (H, W, 3) uint8."""
        check_image(image)
        times = [time.perf_counter()]
        geometry = fit_geometry(image.shape[:2], self.spec)
        network_input = preprocess(image, geometry, self.spec)
        times.append(time.perf_counter())
        labels, confidence = self._graph(network_input[None])
        times.append(time.perf_counter())
        labels = _to_image(labels[0], geometry, cv2.INTER_NEAREST)
        confidence = _to_image(confidence[0], geometry, cv2.INTER_LINEAR)
        times.append(time.perf_counter())
        laps_ms = [(end - start) * 1e3 for start, end in zip(times, times[1:])]
        return Segmentation(labels, confidence, self._tokens, StageTimings(*laps_ms))

    def close(self) -> None:
        """Free the graph."""
        self._graph = None


def open_exported(spec: ModelSpec, path: Path, device: str) -> DensePipeline:
    """Open a graph that `export_dense` wrote, in ONNX Runtime as it comes."""
    from hybrid_seg_ros.inference.backends.onnx_backend import name_device, open_session

    session = open_session(path, device)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, confidence = session.run(None, {'image': images})
        return labels, confidence

    return DensePipeline(spec, run, name_device(device))


def _to_image(values: np.ndarray, geometry: FrameGeometry, interpolation: int) -> np.ndarray:
    """Cut off the padding of (H, W), and resize the rest to the image."""
    values = values[: geometry.content_hw[0], : geometry.content_hw[1]]
    if geometry.content_hw == geometry.image_hw:
        return values
    return cv2.resize(values, geometry.image_hw[::-1], interpolation=interpolation)
