"""GraphBackend: runs exported graphs, whatever library executes them; the same network as the PyTorch backend."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Optional

import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction, WindowScores, check_images
from hybrid_seg_ros.inference.backends.graph_network import GraphNetwork, OpenGraph
from hybrid_seg_ros.inference.backends.graph_source import GraphSource
from hybrid_seg_ros.model_spec import TokenBudget, Variant

MAX_OPEN = 4
"""Operating points whose graphs stay loaded, unless more are asked for."""


class GraphBackend:
    """Finds, loads and runs the graphs of each operating point that it is asked for. May be called from any thread.

    `close_device` is called last, when the graphs are closed.
    """

    def __init__(
        self, source: GraphSource, open_graph: OpenGraph, device_name: str,
        close_device: Optional[Callable[[], None]] = None,
    ) -> None:  # fmt: skip
        self._source, self._open_graph = source, open_graph
        self.device_name = device_name
        self._close_device = close_device
        self._networks: OrderedDict[tuple[Any, ...], GraphNetwork] = OrderedDict()
        self._max_open = MAX_OPEN
        self._lock = threading.Lock()  # held while graphs run
        self._prepare_lock = threading.Lock()  # held, too, while they are exported, built and loaded: minutes
        self._closed = False

    def keep_open(self, count: int) -> None:
        """Keep at least `count` operating points loaded."""
        self._max_open = max(self._max_open, count)

    def warm_up(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget, batch: int = 1) -> None:
        """Export or build what is missing, load it, and run on grey images.

        Another thread can run other operating points meanwhile.
        """
        images = np.full((batch, *size_hw, 3), 128, np.uint8)
        self._prepare(images, variant, budget)
        self.infer(images, variant, budget)

    def is_ready(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> bool:
        """Say whether the graphs are loaded."""
        with self._lock:
            return _key(variant, budget, 1, size_hw) in self._networks

    def check(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> None:
        """Raise GraphError if the graphs were exported for another operating point."""
        self._source.check(variant, budget, size_hw)

    def infer(
        self, images: np.ndarray, variant: Variant, budget: TokenBudget, scores: Optional[WindowScores] = None
    ) -> list[GridPrediction]:  # fmt: skip
        """Segment RGB images (B, H, W, 3) uint8.

        More at once than `warm_up` was told are segmented one after the other, if one alone is ready.
        """
        check_images(images)
        while True:
            with self._lock:
                if self._closed:
                    raise RuntimeError('the backend is closed')
                network = self._find(images, variant, budget)
                if network is not None:
                    return network.infer(images, budget, scores)
            self._prepare(images, variant, budget)

    def close(self) -> None:
        """Free the graphs; what another thread still builds or loads is freed when that is done."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            while self._networks:
                self._networks.popitem()[1].close()
        self._free_device()

    def _free_device(self) -> None:
        """Free the device of a closed backend, once, unless something is being prepared: this does it when it ends."""
        if self._prepare_lock.acquire(blocking=False):
            try:
                close_device, self._close_device = self._close_device, None
                if close_device is not None:
                    close_device()
            finally:
                self._prepare_lock.release()

    def _find(self, images: np.ndarray, variant: Variant, budget: TokenBudget) -> Optional[GraphNetwork]:
        """Return the loaded graphs for this many images, else those for one; None if there are neither."""
        size_hw = (images.shape[1], images.shape[2])
        for batch in (len(images), 1):
            key = _key(variant, budget, batch, size_hw)
            if key in self._networks:
                self._networks.move_to_end(key)
                return self._networks[key]
        return None

    def _prepare(self, images: np.ndarray, variant: Variant, budget: TokenBudget) -> None:
        """Load the graphs for this many images, unless they are."""
        try:
            with self._prepare_lock:
                self._load(images.shape[0], (images.shape[1], images.shape[2]), variant, budget)
        finally:
            if self._closed:  # meanwhile
                self._free_device()

    def _load(self, batch: int, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> None:
        key = _key(variant, budget, batch, size_hw)
        if self._closed:
            raise RuntimeError('the backend is closed')
        if key in self._networks:
            return
        network = GraphNetwork(self._source.find(variant, budget, batch, size_hw), self._open_graph)
        with self._lock:
            if self._closed:
                network.close()
                raise RuntimeError('the backend is closed')
            while len(self._networks) >= self._max_open:
                self._networks.popitem(last=False)[1].close()
            self._networks[key] = network


def _key(variant: Variant, budget: TokenBudget, batch: int, size_hw: tuple[int, int]) -> tuple[Any, ...]:
    """Return what graphs are told apart by; a threshold is an input, not part of them."""
    return variant, budget.merged_windows, budget.keep, batch, size_hw
