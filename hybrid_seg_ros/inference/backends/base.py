"""What every backend offers: network input in, class scores on the patch grid and token report out."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Optional, Protocol

import numpy as np

from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.segmentation import GridPrediction

WindowScores = Mapping[int, np.ndarray]
"""Per window side w, (B, gh // w, gw // w): the windows of highest score share a token (`choose_windows`)."""


class Backend(Protocol):
    """Runs a network. Its methods may be called from any thread."""

    device_name: str

    def keep_open(self, count: int) -> None:
        """Keep what at least `count` operating points need loaded at once."""

    def warm_up(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget, batch: int = 1) -> None:
        """Load what an operating point needs, and run once on `batch` grey images, so that real ones are not slow.

        Other operating points may run in another thread meanwhile.
        """

    def is_ready(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> bool:
        """Say whether an image can be segmented at this operating point without first exporting or loading things."""

    def check(self, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget) -> None:
        """Raise ValueError if it cannot run this operating point, because it has graphs of another one."""

    def infer(
        self, images: np.ndarray, variant: Variant, budget: TokenBudget, scores: Optional[WindowScores] = None
    ) -> list[GridPrediction]:  # fmt: skip
        """Segment RGB images (B, H, W, 3) uint8 at the network's size; one prediction per image.

        `scores` say which windows merge, where the variant does; without them the policy network runs.
        """

    def close(self) -> None:
        """Free the device; `infer` then raises RuntimeError."""


def thread_limit() -> int:
    """Return how many CPU threads OMP_NUM_THREADS allows; 0 where it says nothing. OpenMP heeds it by itself."""
    text = os.environ.get('OMP_NUM_THREADS', '')
    return int(text) if text.isdecimal() else 0


def split_device(name: str, kinds: Collection[str]) -> tuple[str, int]:
    """Read `cpu`, `cuda` or `cuda:1` as kind and index. Raises ValueError that lists the legal kinds."""
    kind, colon, index = str(name).partition(':')
    if kind not in kinds or (colon and (kind == 'cpu' or not index.isdecimal())):
        raise ValueError(f'unknown device {name!r}; legal are {list_devices(kinds)}')
    return kind, int(index or 0)


def list_devices(kinds: Collection[str]) -> str:
    """Return the names of devices of some kinds, for an error."""
    return ', '.join(kind if kind == 'cpu' else f'{kind}, {kind}:N' for kind in kinds)
