"""Heads of Segmenter and CTS: per-token classification, linear or with a mask transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.network.vit import Block


class LinearHead(nn.Module):
    """One linear layer: tokens (B, N, C) -> class logits (B, N, classes). Segmenter, section 3.2."""

    def __init__(self, in_dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(in_dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) -> (B, N, classes)."""
        return self.head(tokens)


class MaskTransformerHead(nn.Module):
    """Segmenter's mask transformer: class embeddings go through blocks with the tokens; masks are dot products.

    Strudel et al., "Segmenter: Transformer for Semantic Segmentation" (ICCV 2021), section 3.2. `num_heads` and
    `num_layers` are those of its blocks; they work at the encoder's width.
    """

    def __init__(self, in_dim: int, num_classes: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.proj_dec = nn.Linear(in_dim, in_dim)
        self.cls_emb = nn.Parameter(torch.randn(1, num_classes, in_dim) * 0.02)
        self.blocks = nn.ModuleList(Block(in_dim, num_heads, 1e-5) for _ in range(num_layers))
        self.decoder_norm = nn.LayerNorm(in_dim)
        self.proj_patch = nn.Parameter(torch.randn(in_dim, in_dim) * in_dim**-0.5)
        self.proj_classes = nn.Parameter(torch.randn(in_dim, in_dim) * in_dim**-0.5)
        self.mask_norm = nn.LayerNorm(num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) -> (B, N, classes)."""
        tokens = self.proj_dec(tokens)
        tokens = torch.cat([tokens, self.cls_emb.expand(tokens.shape[0], -1, -1)], 1)
        for block in self.blocks:
            tokens = block(tokens)
        patches, classes = self.decoder_norm(tokens).split([tokens.shape[1] - self.num_classes, self.num_classes], 1)
        patches = F.normalize(patches @ self.proj_patch, dim=-1)
        classes = F.normalize(classes @ self.proj_classes, dim=-1)
        return self.mask_norm(patches @ classes.transpose(1, 2))
