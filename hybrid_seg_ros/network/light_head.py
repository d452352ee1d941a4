"""Light auxiliary head: a per-token classifier that stands in for ATM at the pruning points."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_seg_ros.network.attention_to_mask import AtmOutput


class LightHead(nn.Module):
    """Layer norm and a two-layer perceptron, token by token; the same interface as `AtmHead`.

    Its outputs are mask logits on ATM's scale, so that a token that leaves with them can be scored by the last head's
    class probabilities. A class is present if its most certain token says so: the class logits are an affine function,
    learnt per class, of the largest mask logit. Costs N (C h + h classes) multiply-adds for N tokens of C channels, h
    of them hidden: a few per cent of a transformer block, where ATM costs as much as a block of ViT-Tiny.
    """

    def __init__(self, in_dim: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.fc1 = nn.Linear(in_dim, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)
        self.presence_scale = nn.Parameter(torch.ones(num_classes))
        self.presence_bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, tokens: Tensor, valid: Optional[Tensor] = None) -> AtmOutput:
        """Classify tokens (B, N, C); `valid` (B, N) is False on padding."""
        mask_logits = self.fc2(F.gelu(self.fc1(self.norm(tokens)))).transpose(1, 2)  # (B, classes, N)
        highest = mask_logits if valid is None else mask_logits.masked_fill(~valid[:, None], float('-inf'))
        # the decision whether a class is present must not pull a single token's mask logit
        present = self.presence_scale * highest.detach().amax(2) + self.presence_bias  # (B, classes)
        return AtmOutput(torch.stack([present, torch.zeros_like(present)], 2), mask_logits)
