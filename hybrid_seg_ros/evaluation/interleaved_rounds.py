"""Timing in interleaved rounds, so that whatever else the machine does slows all that is compared alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from tqdm import tqdm

Key = TypeVar('Key')
Lap = TypeVar('Lap')


def run_interleaved(tasks: Mapping[Key, Callable[[int], Lap]], rounds: int, seed: int) -> dict[Key, list[Lap]]:
    """Call every task once in each of `rounds` rounds, with the round's number; return what they return, by round.

    Each round has an order of its own, so that no task always runs behind the same other one.
    """
    laps: dict[Key, list[Lap]] = {key: [] for key in tasks}
    keys = list(tasks)
    with tqdm(total=rounds * len(keys), desc='benchmark', unit='run', disable=None) as progress:
        for number, order in enumerate(round_orders(len(keys), rounds, seed)):
            for index in order:
                laps[keys[index]].append(tasks[keys[index]](number))
                progress.update()
    return laps


def round_orders(count: int, rounds: int, seed: int) -> Iterator[list[int]]:
    """Yield a random order of 0 .. count - 1 for each round; the same seed gives the same orders."""
    generator = random.Random(seed)
    for _ in range(rounds):
        yield generator.sample(range(count), count)
