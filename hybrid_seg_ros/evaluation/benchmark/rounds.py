"""Runs the rows of a benchmark in interleaved rounds, so that what else the machine does slows all of them alike."""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Optional, TypeVar, Union

import numpy as np
import torch
from tqdm import tqdm

from hybrid_seg_ros.evaluation.benchmark.network_parts import WHOLE_NETWORK, parts_of, sum_parts
from hybrid_seg_ros.evaluation.benchmark.open_rows import OpenRow
from hybrid_seg_ros.evaluation.benchmark.peak_memory import MemoryJob, measure_peak_memory
from hybrid_seg_ros.evaluation.benchmark.plan import RowKey, SizedModel
from hybrid_seg_ros.evaluation.benchmark.results import Lap, RowLaps
from hybrid_seg_ros.evaluation.flops.count import frame_gflops
from hybrid_seg_ros.segmentation import TokenReport

Frames = Mapping[SizedModel, Sequence[np.ndarray]]
"""The images of each model at each size; round n shows the n-th to all its rows."""


def run_rounds(
    rows: Sequence[OpenRow], frames: Frames, rounds: int, seed: int, settle: int, with_parts: bool = True
) -> list[RowLaps]:
    """Run every row on one image per round, in interleaved rounds, and return its laps.

    Before each timed run come `settle` runs that are not timed: they bring the row's data back into the caches, and
    let the threads of another library go to sleep, as if the row had the machine to itself like a node has.
    `with_parts` also times the parts of the PyTorch networks, in the same rounds.
    """
    tasks: dict[Union[RowKey, tuple[int, str]], Callable[[int], Union[tuple[Lap, TokenReport], float]]] = {}
    for row in rows:
        tasks[row.key] = _frame_task(row, frames[row.key.sized_model], settle)
    parts = _network_parts(rows) if with_parts else {}
    tasks.update({key: timed_call(call, settle) for key, call in parts.items()})
    laps = run_interleaved(tasks, rounds, seed)
    medians = {key: statistics.median(laps[key]) for key in parts}
    measured = []
    for row in rows:
        reports = [tokens for _, tokens in laps[row.key]]
        gflops = [frame_gflops(row.model.spec, row.variant, tokens.stages) for tokens in reports]
        own = {part: medians[owner, part] for owner, part in parts if owner == id(row.network)}
        measured.append(
            RowLaps(
                row.key, tuple(lap for lap, _ in laps[row.key]), statistics.fmean(gflops),
                {stage: statistics.fmean(report.stages[stage] for report in reports) for stage in reports[0].stages},
                row.device, row.model.weights,
                sum_parts(own, row.model.spec, row.variant, row.budget) if own else {},
            )
        )  # fmt: skip
    return measured


def add_peak_memory(
    measured: Sequence[RowLaps], rows: Sequence[OpenRow], frames: Frames, folder: Path, device: str
) -> list[RowLaps]:
    """Return the rows with their peak memory, each from a process of its own, one after the other."""
    found = []
    for laps, row in zip(tqdm(measured, desc='memory', unit='row', leave=False, disable=None), rows):
        image = folder / 'image.npy'
        np.save(image, frames[row.key.sized_model][0])
        cache = row.model.cache_dir
        job = MemoryJob(
            str(row.model.path), row.key.backend, device, row.key.dtype, row.key.variant, row.budget.keep, str(image),
            row.model.spec.inference, None if cache is None else str(cache),
            None if row.graph is None else str(row.graph),
        )  # fmt: skip
        found.append(dataclasses.replace(laps, **vars(measure_peak_memory(job))))
    return found


def _frame_task(row: OpenRow, images: Sequence[np.ndarray], settle: int) -> Callable[[int], tuple[Lap, TokenReport]]:
    def run(number: int) -> tuple[Lap, TokenReport]:
        image = images[number % len(images)]
        for _ in range(settle):
            row.pipeline(image)
        start = time.perf_counter()
        result = row.pipeline(image)
        return Lap((time.perf_counter() - start) * 1e3, result.timings), result.tokens

    return run


def _network_parts(rows: Sequence[OpenRow]) -> dict[tuple[int, str], Callable[[], object]]:
    """Return the parts of each PyTorch network that its rows run."""
    parts: dict[tuple[int, str], Callable[[], object]] = {}
    for row in rows:
        if row.network is None:
            continue
        run = parts_of(row.network, [row.variant], row.budget)
        parts.update({(id(row.network), name): call for name, call in run.items() if WHOLE_NETWORK not in name})
    return parts


Key = TypeVar('Key')
Result = TypeVar('Result')


def run_interleaved(tasks: Mapping[Key, Callable[[int], Result]], rounds: int, seed: int) -> dict[Key, list[Result]]:
    """Call every task once in each of `rounds` rounds, with the round's number; return what they return, by round.

    Each round has an order of its own, which `seed` repeats, so that no task always runs behind the same other one.
    """
    results: dict[Key, list[Result]] = {key: [] for key in tasks}
    generator = random.Random(seed)
    with tqdm(total=rounds * len(tasks), desc='benchmark', unit='run', disable=None) as progress:
        for number in range(rounds):
            for key in generator.sample(list(tasks), len(tasks)):
                results[key].append(tasks[key](number))
                progress.update()
    return results


def timed_call(
    call: Callable[[], object], settle: int, device: Optional[torch.device] = None
) -> Callable[[int], float]:
    """Return a task that makes a call `settle` times and once more, and returns the milliseconds of the last."""

    @torch.inference_mode()
    def run(number: int) -> float:
        for _ in range(settle):
            call()
        _wait_for(device)
        start = time.perf_counter()
        call()
        _wait_for(device)
        return (time.perf_counter() - start) * 1e3

    return run


def _wait_for(device: Optional[torch.device]) -> None:
    if device is not None and device.type == 'cuda':
        torch.cuda.synchronize(device)
