"""What every backend offers: network input in, class scores on the patch grid and token report out."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional, Protocol

import numpy as np

from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.segmentation import TokenReport


@dataclass(frozen=True)
class GridPrediction:
    """Class scores of one image on a grid of cells of `cell_px` pixels of the network's input.

    `scores` (S, h, w) float32; `kind` as in SegmenterOutput: 'probability', 'logits' or 'mask_logits', the last
    with `class_mix` (classes, S) float32. The token report has a grid of its own, that of the patches.

    Probabilities may still be on a GPU (`DeviceScores`), where a label map is made of them (`scores.label_map`);
    `numpy.asarray` fetches them.
    """

    scores: Any
    kind: str
    tokens: TokenReport
    cell_px: int
    class_mix: Optional[np.ndarray] = None

    def __post_init__(self) -> None:
        if self.scores.ndim != 3 or self.scores.dtype != np.float32:
            raise ValueError(f'scores: expected (S, h, w) float32, got {self.scores.shape} {self.scores.dtype}')
        if self.kind not in ('probability', 'logits', 'mask_logits'):
            raise ValueError(f'unknown kind {self.kind!r}; legal are probability, logits, mask_logits')
        if (self.kind == 'mask_logits') != (self.class_mix is not None):
            raise ValueError(f'class_mix goes with kind mask_logits, got kind {self.kind!r}')

    def on_host(self) -> 'GridPrediction':
        """Return it with its scores as a NumPy array."""
        return self if isinstance(self.scores, np.ndarray) else replace(self, scores=np.asarray(self.scores))


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


def check_images(images: np.ndarray) -> None:
    """Raise ValueError unless `images` are RGB (B, H, W, 3) uint8."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        got = f'{images.shape} {images.dtype}' if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f'expected RGB images (B, H, W, 3) uint8, got {got}')
    if 0 in images.shape:
        raise ValueError(f'expected at least one image of at least one pixel, got {images.shape}')


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
