"""GraphBackend: runs exported graphs, whatever library executes them; the same network as the PyTorch backend."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction, check_images
from hybrid_seg_ros.inference.backends.graph_info import HEAD, TAIL, WHOLE, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import Graphs, GraphSource
from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.segmentation import TokenReport

MAX_OPEN = 4
"""Operating points whose graphs stay loaded."""


class Runner(Protocol):
    """One loaded graph.

    What `run` returns for the names in `fetch` is a NumPy array; other outputs are in whatever form the same library
    takes as an input of another graph without a copy.
    """

    input_names: tuple[str, ...]

    def run(self, feeds: Mapping[str, Any], fetch: Sequence[str]) -> dict[str, Any]:
        """Run the graph on `feeds`, which may name more than its inputs."""

    def close(self) -> None:
        """Free it."""


OpenGraph = Callable[[Path, GraphInfo, str], Runner]
"""Loads the file of one part of a network."""


class GraphBackend:
    """Finds, loads and runs the graphs of each operating point that it is asked for. May be called from any thread."""

    def __init__(self, source: GraphSource, open_graph: OpenGraph, device_name: str) -> None:
        self._source, self._open_graph = source, open_graph
        self.device_name = device_name
        self._networks: OrderedDict[tuple[Any, ...], GraphNetwork] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def warm_up(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> None:
        """Export or build what is missing, load it, and run once on a grey image."""
        self.infer(np.full((1, *size_hw, 3), 128, np.uint8), variant, budget)

    def check(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> None:
        """Raise GraphError if the graphs were exported for another operating point."""
        self._source.check(variant, budget, size_hw)

    def infer(self, images: np.ndarray, variant: Variant, budget: TokenBudget) -> list[GridPrediction]:
        """Segment RGB images (B, H, W, 3) uint8."""
        check_images(images)
        with self._lock:
            if self._closed:
                raise RuntimeError('the backend is closed')
            return self._network(images, variant, budget).infer(images, budget)

    def close(self) -> None:
        """Free the graphs."""
        with self._lock:
            self._closed = True
            while self._networks:
                self._networks.popitem()[1].close()

    def _network(self, images: np.ndarray, variant: Variant, budget: TokenBudget) -> 'GraphNetwork':
        batch, size_hw = images.shape[0], (images.shape[1], images.shape[2])
        # a threshold is an input, not part of the graphs
        fixed = (budget.merged_windows, budget.keep)
        key = (variant, fixed, batch, size_hw)
        if key not in self._networks:
            graphs = self._source.find(variant, budget, batch, size_hw)
            while len(self._networks) >= MAX_OPEN:
                self._networks.popitem(last=False)[1].close()
            self._networks[key] = GraphNetwork(graphs, self._open_graph)
        self._networks.move_to_end(key)
        return self._networks[key]


class GraphNetwork:
    """The graphs of one operating point, loaded."""

    def __init__(self, graphs: Graphs, open_graph: OpenGraph) -> None:
        self._info = graphs.info
        self._runners: dict[str, Runner] = {}
        try:
            for part, path in graphs.files.items():
                self._runners[part] = open_graph(path, graphs.info, part)
        except BaseException:
            self.close()
            raise

    def infer(self, images: np.ndarray, budget: TokenBudget) -> list[GridPrediction]:
        """Segment images (B, H, W, 3) uint8, as many at once as the graph takes."""
        size, found = self._info.batch, []
        for first in range(0, len(images), size):
            chunk = images[first : first + size]
            count = len(chunk)
            if count < size:
                chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - count, 0)])
            run = self._run_parts if self._info.by_threshold else self._run_whole
            found += run(np.ascontiguousarray(chunk), budget)[:count]
        return found

    def close(self) -> None:
        """Free the graphs."""
        while self._runners:
            self._runners.popitem()[1].close()

    def _run_whole(self, images: np.ndarray, budget: TokenBudget) -> list[GridPrediction]:
        info = self._info
        mixed = info.kind == 'mask_logits'
        fetch = ('scores', *(('class_mix',) if mixed else ()), 'window_size', 'pruned_after_layer')
        out = self._runners[WHOLE].run({'image': images}, fetch)
        return [
            GridPrediction(
                out['scores'][index], info.kind,
                TokenReport(info.grid_hw, out['window_size'][index], out['pruned_after_layer'][index], info.tokens,
                            info.kept),
                info.cell_px, out['class_mix'][index] if mixed else None,
            )
            for index in range(len(images))
        ]  # fmt: skip

    def _run_parts(self, images: np.ndarray, budget: TokenBudget) -> list[GridPrediction]:
        info = self._info
        decision = ('confidence', 'token_class')
        out = self._runners[HEAD].run({'image': images}, (*decision, 'token_of_cell', 'window_size'))
        token_of_cell, window_size = out['token_of_cell'][0], out['window_size'][0]
        feeds, kept = dict(out), []
        alive = np.arange(info.tokens)  # of the tokens that entered, those that are still there
        row = np.arange(info.tokens)  # for each of them, its row among the masks of all heads so far
        rows = info.tokens
        pruned_after = np.zeros(info.tokens, np.uint8)
        for layer, part, next_part in zip(info.prune_layers, info.parts, info.parts[1:]):
            finished = _finished(*(out[name] for name in decision), budget)
            pruned_after[alive[finished]] = layer
            stay = np.flatnonzero(~finished)
            alive = alive[stay]
            row[alive] = np.arange(rows, rows + len(alive))
            rows += len(alive)
            kept.append((layer, len(alive)))
            feeds.update({'tokens': out['next_tokens'], 'stay': stay.astype(np.int32), f'masks_{part}': out['masks']})
            if next_part == TAIL:
                feeds['row_of_cell'] = row[token_of_cell].astype(np.int32)
            out = self._runners[next_part].run(feeds, ('scores',) if next_part == TAIL else decision)
        tokens = TokenReport(info.grid_hw, window_size, pruned_after[token_of_cell].reshape(info.grid_hw), info.tokens,
                             tuple(kept))  # fmt: skip
        return [GridPrediction(out['scores'][0], info.kind, tokens, info.cell_px)]


def _finished(confidence: np.ndarray, token_class: np.ndarray, budget: TokenBudget) -> np.ndarray:
    """Return (N,) bool: the tokens that leave, of confidence and class (1, N) each; PyTorch's own rule."""
    import torch

    from hybrid_seg_ros.network.token_pruning import finished_by_threshold

    return finished_by_threshold(
        torch.from_numpy(confidence), torch.from_numpy(token_class), budget.threshold, budget.keep_per_class
    )[0].numpy()
