"""Heads that classify token by token: the light one that stands in for ATM, and those of Segmenter and CTS."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.network.attention_to_mask import AtmOutput
from hybrid_seg_ros.network.vit import Block

CERTAIN = 20.0
"""A logit whose softmax against its negative is 1 in float32."""


class LightHead(nn.Module):
    """Batch norm and one linear layer, token by token; the same interface as `AtmHead`.

    Class c's mask logit is that of its softmax probability p, log(p / (1 - p)), and every class counts as present, so
    that ATM's score, presence times sigmoid, is p. A pretrained ViT's channels differ by orders of magnitude: the batch
    norm gives each its own scale, as in DINOv2's linear evaluation, and folds into the linear layer for inference. It
    costs N C classes multiply-adds for N tokens of C channels, a hundredth of a transformer block.
    """

    def __init__(self, in_dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(in_dim)
        self.classify = nn.Linear(in_dim, num_classes)

    def forward(self, tokens: Tensor, valid: Optional[Tensor] = None) -> AtmOutput:
        """Classify tokens (B, N, C), each for itself; padding is left out of what the batch norm learns."""
        if self.training and valid is not None:
            flat = tokens.flatten(0, 1)  # (B*N, C)
            known = self.norm(flat[valid.flatten()])
            normed = torch.zeros_like(flat).masked_scatter(valid.reshape(-1, 1), known).view_as(tokens)
        else:
            normed = self.norm(tokens.transpose(1, 2)).transpose(1, 2)
        log_probability = self.classify(normed).float().log_softmax(-1)  # (B, N, classes)
        # log(1 - p); a p that rounds to 1 keeps a finite logit, also where float16 rounds 1 - 1e-6 to 1
        log_others = torch.log1p(-log_probability.exp().clamp(max=1 - 1e-6))
        mask_logits = (log_probability - log_others).clamp(max=14.0).transpose(1, 2)
        present = mask_logits.new_full((mask_logits.shape[0], mask_logits.shape[1]), CERTAIN)
        return AtmOutput(torch.stack([present, -present], 2), mask_logits)


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
