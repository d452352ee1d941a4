"""What a segmenter returns: the label map, its confidence, where the tokens went, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np


@dataclass(frozen=True)
class TokenReport:
    """What token reduction did to one image.

    `grid_hw` is the patch grid. `window_size` (gh, gw) uint8 says for each cell the side of the window that it
    shares a token with: 1 is a token of its own, 2 a merged 2x2 window, and so on. `pruned_after_layer` (gh, gw) uint8
    is the 1-based layer after which the cell's token left the encoder, 0 if it went through to the end. `kept` lists
    (layer, tokens that went on after it) for each pruning layer, in order.

    `areas` says where the grid lies on the image: (top, left, height, width) in image pixels, which reaches past the
    image where the network's input is padded. With a sliding window there is one area per crop, and the crops' grids
    are stacked from top to bottom. Empty = the grid covers exactly the image. `merged_by` says who chose the windows:
    'policy' (the network), 'previous' (the frame before), '' where none merge.
    """

    grid_hw: tuple[int, int]
    window_size: np.ndarray
    pruned_after_layer: np.ndarray
    entering: int
    kept: tuple[tuple[int, int], ...] = ()
    areas: tuple[tuple[float, float, float, float], ...] = ()
    merged_by: str = ''

    def __post_init__(self) -> None:
        for name in ('window_size', 'pruned_after_layer'):
            array = getattr(self, name)
            if array.shape != tuple(self.grid_hw) or array.dtype != np.uint8:
                raise ValueError(f'{name}: expected {tuple(self.grid_hw)} uint8, got {array.shape} {array.dtype}')
        counts = [self.total, self.entering, *(count for _, count in self.kept)]
        if any(after > before for before, after in zip(counts, counts[1:])) or min(counts) < 0:
            raise ValueError(f'token counts must not grow from stage to stage, got {counts}')

    @property
    def total(self) -> int:
        """Number of patches: the tokens of the dense model."""
        return self.grid_hw[0] * self.grid_hw[1]

    @property
    def windows(self) -> dict[int, int]:
        """Per side, largest first, how many windows share one token; a side without any is left out."""
        cells = np.bincount(self.window_size.ravel())
        return {side: int(cells[side]) // side**2 for side in range(len(cells) - 1, 1, -1) if cells[side]}

    @property
    def merged_windows(self) -> int:
        """Number of windows, of all sides, whose patches share one token."""
        return sum(self.windows.values())

    @property
    def stages(self) -> dict[str, int]:
        """Token count per stage, in order: `total`, `merged` (entering the encoder), `kept@6`, `kept@8` ..."""
        return {'total': self.total, 'merged': self.entering, **{f'kept@{layer}': n for layer, n in self.kept}}


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


@dataclass(frozen=True)
class StageTimings:
    """Wall-clock milliseconds of the pipeline's three steps."""

    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float

    @property
    def total_ms(self) -> float:
        """Milliseconds from image to label map."""
        return self.preprocess_ms + self.inference_ms + self.postprocess_ms


@dataclass(frozen=True)
class Segmentation:
    """One segmented image: `labels` (H, W) uint8 class ids, `confidence` (H, W) float32 in [0, 1].

    `confidence` is None only where the pipeline was told that nobody needs it.
    """

    labels: np.ndarray
    confidence: Optional[np.ndarray]
    tokens: TokenReport
    timings: StageTimings

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8:
            raise ValueError(f'labels: expected (H, W) uint8, got {self.labels.shape} {self.labels.dtype}')
        if self.confidence is None:
            return
        if self.confidence.shape != self.labels.shape or self.confidence.dtype != np.float32:
            raise ValueError(
                f'confidence: expected {self.labels.shape} float32, '
                f'got {self.confidence.shape} {self.confidence.dtype}'
            )
