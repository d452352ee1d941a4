"""The graphs of one operating point at work: one whole graph, or a chain between whose parts tokens leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hybrid_seg_ros.inference.backends.base import GridPrediction
from hybrid_seg_ros.inference.backends.graph_info import HEAD, TAIL, WHOLE, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import Graphs
from hybrid_seg_ros.model_spec import TokenBudget
from hybrid_seg_ros.segmentation import TokenReport

MAX_IN_FLIGHT = 2
"""Runs of one graph that are begun and not finished: before a further one begins, the oldest must be finished."""


class Runner(Protocol):
    """One loaded graph.

    What `run` returns for the names in `fetch` is a NumPy array; other outputs are in whatever form the same library
    takes as an input of another graph without a copy.

    A runner on a GPU may also have `start(feeds, fetch)`, which returns before the graph has run, with the function
    that waits for it and gives what `run` does; and `keeps_scores`, true where scores that are not fetched come as
    DeviceScores.
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

    def start(self, images: np.ndarray, budget: TokenBudget) -> Callable[[], list[GridPrediction]]:
        """Begin to segment images (B, H, W, 3) uint8, as many at once as the graph takes; what is returned finishes it.

        More images than the graph takes at once are segmented before this returns, all but the last of them.
        """
        size, found = self.batch, []
        begin = self._start_parts if self._info.by_threshold else self._start_whole
        for first in range(0, len(images), size):
            chunk = images[first : first + size]
            count = len(chunk)
            if count < size:
                chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - count, 0)])
            finish = begin(np.ascontiguousarray(chunk), budget)
            if first + size < len(images):
                found += finish()
        return lambda: (found + finish())[: len(images)]

    def close(self) -> None:
        """Free the graphs."""
        while self._runners:
            self._runners.popitem()[1].close()

    def _start_whole(self, images: np.ndarray, budget: TokenBudget) -> Callable[[], list[GridPrediction]]:
        info = self._info
        mixed = info.kind == 'mask_logits'
        fetch = (*self._fetched_scores(WHOLE), *(('class_mix',) if mixed else ()), 'window_size', 'pruned_after_layer')
        wait = _start(self._runners[WHOLE], {'image': images}, fetch)

        def finish() -> list[GridPrediction]:
            out = wait()
            return [
                GridPrediction(
                    out['scores'][index], info.kind,
                    TokenReport(info.grid_hw, out['window_size'][index], out['pruned_after_layer'][index], info.tokens,
                                info.kept),
                    info.cell_px, out['class_mix'][index] if mixed else None,
                )
                for index in range(self.batch)
            ]  # fmt: skip

        return finish

    def _start_parts(self, images: np.ndarray, budget: TokenBudget) -> Callable[[], list[GridPrediction]]:
        wait = _start(self._runners[HEAD], {'image': images}, (*DECISION, 'token_of_cell', 'window_size'))
        return lambda: self._run_parts(wait(), budget)

    def _run_parts(self, out: dict[str, Any], budget: TokenBudget) -> list[GridPrediction]:
        info = self._info
        token_of_cell, window_size = out['token_of_cell'][0], out['window_size'][0]
        feeds, kept = dict(out), []
        alive = np.arange(info.tokens)  # of the tokens that entered, those that are still there
        row = np.arange(info.tokens)  # for each of them, its row among the masks of all heads so far
        rows = info.tokens
        pruned_after = np.zeros(info.tokens, np.uint8)
        for layer, part, next_part in zip(info.prune_layers, info.parts, info.parts[1:]):
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
        tokens = TokenReport(info.grid_hw, window_size, pruned_after[token_of_cell].reshape(info.grid_hw), info.tokens,
                             tuple(kept))  # fmt: skip
        return [GridPrediction(out['scores'][0], info.kind, tokens, info.cell_px)]

    def _fetched_scores(self, part: str) -> tuple[str, ...]:
        """Name the scores that a part gives if they must be fetched: probabilities may stay on a GPU."""
        keeps = self._info.kind == 'probability' and getattr(self._runners[part], 'keeps_scores', False)
        return () if keeps else ('scores',)


def _start(runner: Runner, feeds: Mapping[str, Any], fetch: Sequence[str]) -> Callable[[], dict[str, Any]]:
    """Begin to run a graph where the runner can, else run it; return what gives the outputs."""
    begin = getattr(runner, 'start', None)
    if begin is not None:
        return begin(feeds, fetch)
    outputs = runner.run(feeds, fetch)
    return lambda: outputs


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
