"""Attention-to-mask (ATM) decoder: class queries attend to tokens; their attention logits are the masks.

Sources: SegViT (Zhang et al., NeurIPS 2022), section 3.2, and DToP for the single-stage head used while pruning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.network.vit import Attention


@dataclass(frozen=True)
class AtmOutput:
    """`class_logits` (B, queries, K) and `mask_logits` (B, queries, N); one query per class."""

    class_logits: Tensor
    mask_logits: Tensor


class MaskAttention(nn.Module):
    """Cross-attention that also returns its logits, averaged over the heads, as masks."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, tokens: Tensor, valid: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        """Return updated queries (B, Q, C) and raw scaled attention logits (B, Q, N)."""
        batch, _, dim = queries.shape
        query, key, value = (
            projection(source).view(batch, -1, self.num_heads, dim // self.num_heads).transpose(1, 2)
            for projection, source in ((self.q, queries), (self.k, tokens), (self.v, tokens))
        )  # each (B, heads, Q or N, d)
        logits = (query @ key.transpose(-2, -1)) * (dim // self.num_heads) ** -0.5  # (B, heads, Q, N)
        weights = logits if valid is None else logits.masked_fill(~valid[:, None, None, :], float('-inf'))
        out = (weights.softmax(-1) @ value).transpose(1, 2).reshape(batch, -1, dim)
        return self.proj(out), logits.mean(1)


class AtmDecoderLayer(nn.Module):
    """Post-norm decoder layer: self-attention (optional), mask attention, ReLU feed-forward."""

    def __init__(self, dim: int, num_heads: int, self_attention: bool, dropout: float = 0.1) -> None:
        super().__init__()
        self.self_attention = Attention(dim, num_heads) if self_attention else None
        self.norm1 = nn.LayerNorm(dim) if self_attention else None
        self.mask_attention = MaskAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = nn.Linear(4 * dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, tokens: Tensor, valid: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        """Return updated queries (B, Q, C) and mask logits (B, Q, N)."""
        if self.self_attention is not None:
            queries = self.norm1(queries + self.dropout(self.self_attention(queries)))
        attended, mask_logits = self.mask_attention(queries, tokens, valid)
        queries = self.norm2(queries + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(queries)))
        return self.norm3(queries + self.dropout(self.linear2(hidden))), mask_logits


class AtmDecoder(nn.Module):
    """Projection of the tokens, then decoder layers; the masks are those of the last layer."""

    def __init__(self, in_dim: int, dim: int, num_layers: int, num_heads: int, self_attention: bool) -> None:
        super().__init__()
        self.input_proj = nn.Linear(in_dim, dim)
        self.input_norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(AtmDecoderLayer(dim, num_heads, self_attention) for _ in range(num_layers))
        nn.init.trunc_normal_(self.input_proj.weight, std=0.02)
        nn.init.zeros_(self.input_proj.bias)

    def forward(self, queries: Tensor, tokens: Tensor, valid: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode queries (B, Q, c) over tokens (B, N, C): queries (B, Q, c) and mask logits (B, Q, N)."""
        tokens = self.input_norm(self.input_proj(tokens))
        mask_logits = None
        for layer in self.layers:
            queries, mask_logits = layer(queries, tokens, valid)
        return queries, mask_logits


class AtmHead(nn.Module):
    """Single-stage ATM head on one layer's tokens: DToP's final head and auxiliary heads.

    Each class query says with two logits whether its class is present (index 0) or absent (index 1).
    """

    def __init__(self, in_dim: int, num_classes: int, dim: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.decoder = AtmDecoder(in_dim, dim, num_layers, num_heads, self_attention=True)
        self.query = nn.Embedding(num_classes, dim)
        self.class_embed = nn.Linear(dim, 2)

    def forward(self, tokens: Tensor, valid: Optional[Tensor] = None) -> AtmOutput:
        """Classify tokens (B, N, C); `valid` (B, N) is False on padding."""
        queries = self.query.weight.expand(tokens.shape[0], -1, -1)
        queries, mask_logits = self.decoder(queries, tokens, valid)
        return AtmOutput(self.class_embed(queries), mask_logits)

    @staticmethod
    def class_probability(class_logits: Tensor) -> Tensor:
        """Return the probability that each class is present: (B, Q, 2) -> (B, Q)."""
        return class_logits.float().softmax(-1)[..., 0]


class SegVitHead(nn.Module):
    """Multi-stage ATM head on the tokens of several layers, deepest first; queries chained, masks summed.

    With `self_attention` it is SegViT's ATMHead, whose queries choose among classes + "none"; without, DToP's
    ATMHeadV2, whose query c says whether class c is present.
    """

    def __init__(
        self, in_dim: int, num_classes: int, dim: int, num_layers: int, num_heads: int, stages: int,
        self_attention: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.queries_say_present = not self_attention
        self.decoders = nn.ModuleList(
            AtmDecoder(in_dim, dim, num_layers, num_heads, self_attention) for _ in range(stages)
        )
        self.query = nn.Embedding(num_classes, dim)
        self.class_embed = nn.Linear(dim, num_classes + 1 if self_attention else 2)

    def forward(self, layers: Sequence[Tensor]) -> AtmOutput:
        """Classify from the tokens (B, N, C) of each stage's layer, shallowest first."""
        if len(layers) != len(self.decoders):
            raise ValueError(f'expected tokens of {len(self.decoders)} layers, got {len(layers)}')
        queries = self.query.weight.expand(layers[0].shape[0], -1, -1)
        masks = []
        for decoder, tokens in zip(self.decoders, reversed(list(layers))):
            queries, mask_logits = decoder(queries, tokens, None)
            masks.append(mask_logits)
        return AtmOutput(self.class_embed(queries), torch.stack(masks).sum(0))

    def class_mix(self, class_logits: Tensor) -> Tensor:
        """Return how much each query's mask adds to each class: (B, Q, K) -> (B, Q, classes)."""
        probability = class_logits.float().softmax(-1)
        if self.queries_say_present:
            present = probability[..., 0]
            return present[:, :, None] * torch.eye(present.shape[1], dtype=present.dtype, device=present.device)
        return probability[..., :-1]
