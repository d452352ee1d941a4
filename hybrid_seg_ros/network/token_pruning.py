"""DToP early pruning as pure functions: confidence, which tokens are finished, and who goes on.

Source: "Dynamic Token Pruning in Plain Vision Transformers for Semantic Segmentation" (Tang et al., ICCV 2023),
section 3; the k = 5 rule is its category-preserving exit. Decisions carry no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from hybrid_seg_ros.model_spec import Keep
from hybrid_seg_ros.network.token_merging import kept_count


@dataclass(frozen=True)
class AliveTokens:
    """Tokens still in the encoder.

    `index` (B, M) int64: their position among the tokens that entered it. Images of a batch may keep different
    counts: `valid` (B, M) is then False on the padding behind the shorter ones, whose index is the number of
    entering tokens, one past the last; None means that there is no padding.
    """

    index: Tensor
    valid: Optional[Tensor]

    @classmethod
    def all(cls, batch: int, num_tokens: int, device: torch.device) -> 'AliveTokens':
        """Return the state before any pruning."""
        return cls(torch.arange(num_tokens, device=device).expand(batch, -1), None)

    def counts(self) -> Tensor:
        """Return the number of tokens per image, (B,) int64."""
        if self.valid is not None:
            return self.valid.sum(1)
        return torch.full((self.index.shape[0],), self.index.shape[1], dtype=torch.int64, device=self.index.device)


def class_confidence(class_probability: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return confidence (B, N) in [0, 1] and class (B, N) of each token: max and argmax over c of p_c sigmoid(m_cn).

    `class_probability` (B, classes), `mask_logits` (B, classes, N).
    """
    confidence, classes = (class_probability[:, :, None] * mask_logits.sigmoid()).max(1)
    return confidence, classes


def finished_by_threshold(
    confidence: Tensor, classes: Tensor, threshold: float, keep_per_class: int, valid: Optional[Tensor] = None
) -> Tensor:
    """Return (B, N) bool: tokens more confident than `threshold`, but for the top `keep_per_class` of each class.

    threshold = 1 finishes none. At least one token of each image always stays.
    """
    finished = confidence > threshold
    if valid is not None:
        finished = finished & valid
    rank = _rank_within_class(confidence.masked_fill(~finished, -1.0), classes)
    finished = finished & (rank >= keep_per_class)
    alive = torch.ones_like(finished) if valid is None else valid
    least = confidence.masked_fill(~alive, 2.0).argmin(1, keepdim=True)
    emptied = ~(alive & ~finished).any(1, keepdim=True)
    return finished.scatter(1, least, finished.gather(1, least) & ~emptied)


def stay_by_count(confidence: Tensor, keep: Keep) -> Tensor:
    """Return (B, k) int64, ascending: the `keep` (count, or fraction of N) least confident of the tokens (B, N)."""
    count = kept_count(int(confidence.shape[1]), keep)
    return _ascending(confidence.topk(count, dim=1, largest=False, sorted=False).indices)


def keep_only(alive: AliveTokens, stay: Tensor) -> AliveTokens:
    """Keep the tokens `stay` (B, k) of the alive ones, as many in each image: all shapes are known beforehand."""
    if alive.valid is not None:
        raise ValueError('a fixed keep cannot follow threshold pruning in one batch')
    return AliveTokens(alive.index.gather(1, stay), None)


def drop_finished(alive: AliveTokens, finished: Tensor, num_entering: int) -> tuple[Tensor, AliveTokens]:
    """Remove the tokens `finished` (B, M) bool; the others keep their order, and images are padded to the longest.

    Returns which of the M alive tokens stay, (B, k) int64, and what is alive then.
    """
    stays = ~finished if alive.valid is None else ~finished & alive.valid
    counts = stays.sum(1)
    count = int(counts.max())
    # A stable sort of "leaves" brings those who stay to the front, in order, without a loop over images.
    order = stays.logical_not().to(torch.uint8).sort(dim=1, stable=True).indices[:, :count]
    index = alive.index.gather(1, order)
    if bool((counts == count).all()):
        return order, AliveTokens(index, None)
    valid = torch.arange(count, device=index.device) < counts[:, None]
    return order, AliveTokens(index.masked_fill(~valid, num_entering), valid)


def write_back(canvas: Tensor, values: Tensor, alive: AliveTokens) -> Tensor:
    """Return `canvas` (B, C, N + 1) with the columns of the alive tokens replaced by `values` (B, C, M).

    Column N is where padding is written; nobody reads it.
    """
    index = alive.index[:, None].expand(-1, canvas.shape[1], -1)
    return canvas.scatter(2, index, values.to(canvas.dtype))


def _rank_within_class(confidence: Tensor, classes: Tensor) -> Tensor:
    """Return (B, N) int64: 0 for the most confident token of its class, 1 for the next, and so on."""
    by_confidence = confidence.sort(dim=1, descending=True, stable=True).indices
    by_class = classes.gather(1, by_confidence).sort(dim=1, stable=True)
    order = by_confidence.gather(1, by_class.indices)  # sorted by class, then by falling confidence
    position = torch.arange(order.shape[1], device=order.device).expand_as(order)
    starts = torch.ones_like(order, dtype=torch.bool)
    starts[:, 1:] = by_class.values[:, 1:] != by_class.values[:, :-1]
    first = torch.where(starts, position, torch.zeros_like(position)).cummax(1).values
    return torch.zeros_like(order).scatter(1, order, position - first)


def _ascending(index: Tensor) -> Tensor:
    """Sort indices (B, M) int64 below 2**24 along the last axis, by way of float32: TensorRT sorts no integers."""
    return index.float().sort(1).values.to(index.dtype)
