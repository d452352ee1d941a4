"""The segmentation node without its network: what is left is what the node itself costs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.inference import SegmentationPipeline
from hybrid_seg_ros.inference.backends import Backend, create_backend
from hybrid_seg_ros.inference.backends.automatic import choose_placement
from hybrid_seg_ros.inference.backends.base import WindowScores
from hybrid_seg_ros.inference.preprocess import check_images
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.process_memory import limit_threads
from hybrid_seg_ros.ros.parameters import NodeConfig
from hybrid_seg_ros.ros.segmentation_node import main as run_node
from hybrid_seg_ros.segmentation import GridPrediction


class IdleBackend:
    """Answers each image with the prediction that the network made of one street, when it was warmed up.

    So the steps after the network have a mask's edges and regions to work on. The network itself is gone by then:
    its memory and its threads are not counted either.
    """

    def __init__(self, network: Backend) -> None:
        self.device_name = network.device_name
        self._network: Optional[Backend] = network
        self._prediction: Optional[GridPrediction] = None

    def keep_open(self, count: int) -> None:
        """Nothing is loaded per operating point."""

    def is_ready(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> bool:
        """Every operating point is, once the network has run."""
        return self._prediction is not None

    def warm_up(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget, batch: int = 1) -> None:
        """Run the network, for the last time."""
        if self._network is None:
            return
        prediction = self._network.infer(street_scene(size_hw)[None], variant, budget)[0]
        self._prediction = prediction.on_host()
        self.close()

    def check(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> None:
        """Every operating point is answered alike."""

    def infer(
        self, images: np.ndarray, variant: Variant, budget: TokenBudget, scores: Optional[WindowScores] = None
    ) -> list[GridPrediction]:  # fmt: skip
        """Return the one prediction for each image (B, H, W, 3) uint8. Raises RuntimeError before `warm_up`."""
        check_images(images)
        if self._prediction is None:
            raise RuntimeError('the idle backend has no prediction to repeat: warm_up has not run')
        return [self._prediction] * len(images)

    def close(self) -> None:
        """Free the network, if it is still there."""
        network, self._network = self._network, None
        if network is not None:
            network.close()


def load_idle(config: NodeConfig) -> SegmentationPipeline:
    """Load the model that the parameters name, into an IdleBackend. Raises what load_pipeline raises."""
    limit_threads(config.num_threads or None)
    spec = ModelSpec.load(config.model_path)
    graph = Path(config.engine_path) if config.engine_path else None
    placement = choose_placement(config.backend, config.device, config.precision, graph)
    network = create_backend(placement.backend, spec, placement.device, placement.precision, graph)
    limit_threads(config.num_threads or None)
    return SegmentationPipeline(
        spec, IdleBackend(network), f'idle {placement.backend}', placement.precision, output_size=config.mask_size
    )


def main(args: Optional[Sequence[str]] = None) -> int:
    """Run the node until SIGINT or SIGTERM; return its exit status."""
    return run_node(args, load_idle)


if __name__ == '__main__':
    sys.exit(main())
