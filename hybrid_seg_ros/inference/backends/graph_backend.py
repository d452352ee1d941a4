"""GraphBackend: runs exported graphs, whatever library executes them; the same network as the PyTorch backend."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from hybrid_seg_ros.inference.backends.base import WindowScores
from hybrid_seg_ros.inference.backends.graph_info import HEAD, POLICY, TAIL, WHOLE, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import Graphs, GraphSource
from hybrid_seg_ros.inference.preprocess import check_images
from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.network.token_merging import choose_windows, score_name
from hybrid_seg_ros.segmentation import GridPrediction, TokenReport

MAX_OPEN = 4
"""Operating points whose graphs stay loaded, unless more are asked for."""

DECISION = ('confidence', 'token_class')
"""What a threshold decides by."""


class Runner(Protocol):
    """One loaded graph.

    What `run` returns for the names in `fetch` is a NumPy array; other outputs are in whatever form the same library
    takes as an input of another graph without a copy. Inputs may be among them, too.

    A runner on a GPU may also have `keeps_scores`, true where scores that are not fetched come as DeviceScores.
    """

    input_names: tuple[str, ...]

    def run(self, feeds: Mapping[str, Any], fetch: Sequence[str]) -> dict[str, Any]:
        """Run the graph on `feeds`, which may name more than its inputs."""

    def close(self) -> None:
        """Free it."""


OpenGraph = Callable[[Path, GraphInfo, str], Runner]
"""Loads the file of one part of a network."""


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
        self._prepare(batch, tuple(size_hw), variant, budget)
        self.infer(np.full((batch, *size_hw, 3), 128, np.uint8), variant, budget)

    def is_ready(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> bool:
        """Say whether the graphs are loaded."""
        with self._lock:
            return _key(variant, budget, 1, tuple(size_hw)) in self._networks

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
                for batch in (len(images), 1):
                    key = _key(variant, budget, batch, images.shape[1:3])
                    if key in self._networks:
                        self._networks.move_to_end(key)
                        return self._networks[key].infer(images, budget, scores)
            self._prepare(len(images), images.shape[1:3], variant, budget)

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

    def _prepare(self, batch: int, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> None:
        """Load the graphs for this many images, unless they are."""
        try:
            with self._prepare_lock:
                self._load(batch, size_hw, variant, budget)
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


class GraphNetwork:
    """The graphs of one operating point, loaded: one whole graph, or a chain between whose parts tokens leave.

    All that does not depend on the image is settled here, once.
    """

    def __init__(self, graphs: Graphs, open_graph: OpenGraph) -> None:
        info = graphs.info
        self._info = info
        self._by_threshold, self._prune_layers, self._parts = info.by_threshold, info.prune_layers, info.network_parts
        self._merged_windows = dict(info.merged_windows)
        self._score_names = {window: score_name(window) for window in info.windows[1:]}  # empty where none merge
        self._runners: dict[str, Runner] = {}
        try:
            for part, path in graphs.files.items():
                self._runners[part] = open_graph(path, info, part)
        except BaseException:
            self.close()
            raise
        last = self._runners[TAIL if self._by_threshold else WHOLE]
        self._fetched = ['class_mix'] if info.kind == 'mask_logits' else []
        if not (info.kind == 'probability' and getattr(last, 'keeps_scores', False)):  # these may stay on a GPU
            self._fetched.append('scores')
        if self._prune_layers and not self._by_threshold:
            self._fetched.append('pruned_after_layer')

    def infer(
        self, images: np.ndarray, budget: TokenBudget, scores: Optional[WindowScores] = None
    ) -> list[GridPrediction]:  # fmt: skip
        """Segment images (B, H, W, 3) uint8, as many at once as the graph takes; `scores` as of `Backend.infer`."""
        size = self._info.batch
        found: list[GridPrediction] = []
        for first in range(0, len(images), size):
            index = np.minimum(np.arange(first, first + size), len(images) - 1)  # the last one fills up
            chunk = images[first : first + size] if first + size <= len(images) else images[index]
            of_chunk = None if scores is None else {window: each[index] for window, each in scores.items()}
            feeds, window_size = self._layout(np.ascontiguousarray(chunk), of_chunk)
            if self._by_threshold:
                found += self._run_parts(feeds, window_size, budget)
            else:
                found += self._run_whole(feeds, window_size)
        return found[: len(images)]

    def close(self) -> None:
        """Free the graphs."""
        while self._runners:
            self._runners.popitem()[1].close()

    def _layout(self, images: np.ndarray, scores: Optional[WindowScores]) -> tuple[dict[str, Any], np.ndarray]:
        """Return what the first graph takes, and the side of the window of each cell (B, gh, gw)."""
        feeds, grid_hw = {'image': images}, self._info.grid_hw
        if not self._score_names:
            return feeds, np.ones((len(images), *grid_hw), np.uint8)
        if scores is None:
            out = self._runners[POLICY].run(feeds, tuple(self._score_names.values()))
            feeds['image'] = out.get('image', images)  # on a GPU it is there by now
            scores = {window: out[name] for window, name in self._score_names.items()}
        choice = choose_windows(scores, self._merged_windows, grid_hw)
        return {**feeds, 'token_source': choice.source, 'token_of_cell': choice.token_of_cell}, choice.window_size()

    def _run_whole(self, feeds: dict[str, Any], window_size: np.ndarray) -> list[GridPrediction]:
        info = self._info
        out = self._runners[WHOLE].run(feeds, self._fetched)
        pruned_after = out.get('pruned_after_layer', np.zeros_like(window_size))
        return [
            GridPrediction(
                out['scores'][index], info.kind,
                TokenReport(info.grid_hw, window_size[index], pruned_after[index], info.tokens, info.kept),
                info.cell_px, out['class_mix'][index] if 'class_mix' in out else None,
            )
            for index in range(info.batch)
        ]  # fmt: skip

    def _run_parts(self, feeds: dict[str, Any], window_size: np.ndarray, budget: TokenBudget) -> list[GridPrediction]:
        info = self._info
        out = self._runners[HEAD].run(feeds, DECISION)
        token_of_cell = feeds['token_of_cell'][0] if 'token_of_cell' in feeds else np.arange(info.tokens)
        feeds, kept = dict(out), []
        alive = np.arange(info.tokens)  # of the tokens that entered, those that are still there
        row = np.arange(info.tokens)  # for each of them, its row among the masks of all heads so far
        rows = info.tokens
        pruned_after = np.zeros(info.tokens, np.uint8)
        for layer, part, next_part in zip(self._prune_layers, self._parts, self._parts[1:]):
            finished = finished_by_threshold(*(out[name][0] for name in DECISION), budget)
            pruned_after[alive[finished]] = layer
            stay = np.flatnonzero(~finished)
            alive = alive[stay]
            row[alive] = np.arange(rows, rows + len(alive))
            rows += len(alive)
            kept.append((layer, len(alive)))
            feeds.update({'tokens': out['next_tokens'], 'stay': stay.astype(np.int32), f'masks_{part}': out['masks']})
            if next_part == TAIL:
                feeds['row_of_cell'] = row[token_of_cell].astype(np.int32)
            out = self._runners[next_part].run(feeds, self._fetched if next_part == TAIL else DECISION)
        tokens = TokenReport(info.grid_hw, window_size[0], pruned_after[token_of_cell].reshape(info.grid_hw),
                             info.tokens, tuple(kept))  # fmt: skip
        return [GridPrediction(out['scores'][0], info.kind, tokens, info.cell_px)]


def finished_by_threshold(confidence: np.ndarray, token_class: np.ndarray, budget: TokenBudget) -> np.ndarray:
    """Return (N,) bool: the tokens that leave, of confidence and class (N,) each.

    DToP's rule as `network/token_pruning.py` has it, where no PyTorch need be: more confident than the threshold, but
    for the most confident of each class, `keep_per_class` of them, of equals the first; one token at least stays.
    """
    finished = confidence > budget.threshold
    order = np.lexsort((-np.where(finished, confidence, -1), token_class))  # by class, then by falling confidence
    in_order = token_class[order]
    first = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]]))  # of each class
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(first, np.diff([*first, len(order)]))
    finished &= rank >= budget.keep_per_class
    if finished.all():
        finished[confidence.argmin()] = False
    return finished
