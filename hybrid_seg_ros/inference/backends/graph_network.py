"""The graphs of one operating point at work: one whole graph, or a chain between whose parts tokens leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction, WindowScores
from hybrid_seg_ros.inference.backends.graph_info import HEAD, POLICY, TAIL, WHOLE, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import Graphs
from hybrid_seg_ros.model_spec import TokenBudget
from hybrid_seg_ros.network.token_merging import choose_windows, score_name
from hybrid_seg_ros.segmentation import TokenReport


class Runner(Protocol):
    """One loaded graph.

    What `run` returns for the names in `fetch` is a NumPy array; other outputs are in whatever form the same library
    takes as an input of another graph without a copy.

    A runner on a GPU may also have `keeps_scores`, true where scores that are not fetched come as DeviceScores.
    """

    input_names: tuple[str, ...]

    def run(self, feeds: Mapping[str, Any], fetch: Sequence[str]) -> dict[str, Any]:
        """Run the graph on `feeds`, which may name more than its inputs."""

    def close(self) -> None:
        """Free it."""


DECISION = ('confidence', 'token_class')
"""What a threshold decides by."""

OpenGraph = Callable[[Path, GraphInfo, str], Runner]
"""Loads the file of one part of a network."""


class GraphNetwork:
    """The graphs of one operating point, loaded; at most `batch` images at once."""

    def __init__(self, graphs: Graphs, open_graph: OpenGraph) -> None:
        self._info = graphs.info
        self.batch = graphs.info.batch
        self._runners: dict[str, Runner] = {}
        try:
            for part, path in graphs.files.items():
                self._runners[part] = open_graph(path, graphs.info, part)
        except BaseException:
            self.close()
            raise

    def infer(
        self, images: np.ndarray, budget: TokenBudget, scores: Optional[WindowScores] = None
    ) -> list[GridPrediction]:  # fmt: skip
        """Segment images (B, H, W, 3) uint8, as many at once as the graph takes; `scores` as of `Backend.infer`."""
        size = self.batch
        found: list[GridPrediction] = []
        for first in range(0, len(images), size):
            index = np.minimum(np.arange(first, first + size), len(images) - 1)  # the last one fills up
            chunk = images[first : first + size] if first + size <= len(images) else images[index]
            of_chunk = None if scores is None else {window: each[index] for window, each in scores.items()}
            feeds, window_size = self._layout(np.ascontiguousarray(chunk), of_chunk)
            run = self._run_parts if self._info.by_threshold else self._run_whole
            found += run(feeds, window_size, budget)
        return found[: len(images)]

    def close(self) -> None:
        """Free the graphs."""
        while self._runners:
            self._runners.popitem()[1].close()

    def _layout(self, images: np.ndarray, scores: Optional[WindowScores]) -> tuple[dict[str, Any], np.ndarray]:
        """Return what the first graph takes, and the side of the window of each cell (B, gh, gw)."""
        info, feeds = self._info, {'image': images}
        if POLICY not in self._runners:
            return feeds, np.ones((len(images), *info.grid_hw), np.uint8)
        if scores is None:
            names = {window: score_name(window) for window in info.windows[1:]}
            out = self._runners[POLICY].run(feeds, tuple(names.values()))
            scores = {window: out[name] for window, name in names.items()}
        choice = choose_windows(scores, dict(info.merged_windows), info.grid_hw)
        return {**feeds, 'token_source': choice.source, 'token_of_cell': choice.token_of_cell}, choice.window_size()

    def _run_whole(self, feeds: dict[str, Any], window_size: np.ndarray, budget: TokenBudget) -> list[GridPrediction]:
        info = self._info
        mixed = info.kind == 'mask_logits'
        report = ('pruned_after_layer',) if info.prune_layers else ()
        fetch = (*self._fetched_scores(WHOLE), *(('class_mix',) if mixed else ()), *report)
        out = self._runners[WHOLE].run(feeds, fetch)
        pruned_after = out.get('pruned_after_layer', np.zeros_like(window_size))
        return [
            GridPrediction(
                out['scores'][index], info.kind,
                TokenReport(info.grid_hw, window_size[index], pruned_after[index], info.tokens, info.kept),
                info.cell_px, out['class_mix'][index] if mixed else None,
            )
            for index in range(self.batch)
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
        for layer, part, next_part in zip(info.prune_layers, info.network_parts, info.network_parts[1:]):
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
            out = self._runners[next_part].run(feeds, self._fetched_scores(TAIL) if next_part == TAIL else DECISION)
        tokens = TokenReport(info.grid_hw, window_size[0], pruned_after[token_of_cell].reshape(info.grid_hw),
                             info.tokens, tuple(kept))  # fmt: skip
        return [GridPrediction(out['scores'][0], info.kind, tokens, info.cell_px)]

    def _fetched_scores(self, part: str) -> tuple[str, ...]:
        """Name the scores that a part gives if they must be fetched: probabilities may stay on a GPU."""
        keeps = self._info.kind == 'probability' and getattr(self._runners[part], 'keeps_scores', False)
        return () if keeps else ('scores',)


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
