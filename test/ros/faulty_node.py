"""The real node with a pipeline that fails as the picture asks: run as a program by test_faults.py.

A frame whose pixels are all (R, G, B) = FAULTS[name] triggers that fault; every other frame is segmented as usual.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybrid_seg_ros.inference import SegmentationPipeline
from hybrid_seg_ros.ros import lifecycle_node, segmentation_node
from hybrid_seg_ros.ros.model_loading import load_configured
from hybrid_seg_ros.ros.parameters import NodeConfig

FAULTS = {
    'error': (251, 1, 1),
    'memory': (251, 2, 2),
    'slow': (251, 3, 3),
    'hang': (251, 4, 4),
}
SLOW_S = 1.0
HANG_S = 8.0
"""Longer than this node waits for a frame; then it comes back, and nobody may hear of it."""


class FaultyPipeline:
    """A real pipeline whose inference fails for certain pictures."""

    def __init__(self, pipeline: SegmentationPipeline) -> None:
        self._pipeline = pipeline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def segment_batch(self, images: Sequence[np.ndarray], *others: Any) -> Any:
        color = tuple(map(int, images[0][0, 0]))
        if color == FAULTS['error']:
            raise RuntimeError('the backend is out of order')
        if color == FAULTS['memory']:
            raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')
        if color == FAULTS['slow']:
            time.sleep(SLOW_S)
        if color == FAULTS['hang']:
            time.sleep(HANG_S)
        return self._pipeline.segment_batch(images, *others)


def load(config: NodeConfig) -> Any:
    """Load the model that the parameters name, with the faults."""
    if config.device == 'cpu:never':  # stands for an engine that takes minutes to build
        time.sleep(3600)
    return FaultyPipeline(load_configured(config))


if __name__ == '__main__':
    lifecycle_node.STUCK_S = 2.0
    sys.exit(segmentation_node.main(load=load))
