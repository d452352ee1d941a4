"""Light head: a linear classifier that stands in for ATM, at the pruning points and behind the last layer."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from hybrid_seg_ros.network.attention_to_mask import AtmOutput

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
        flat = tokens.flatten(0, 1)  # (B*N, C)
        if self.training and valid is not None:
            normed = torch.zeros_like(flat).masked_scatter(valid.reshape(-1, 1), self.norm(flat[valid.flatten()]))
        else:
            normed = self.norm(flat)
        logits = self.classify(normed).float()
        log_probability = logits.log_softmax(-1).unflatten(0, (int(tokens.shape[0]), -1))  # (B, N, classes)
        # log(1 - p); a p that rounds to 1 keeps a finite logit, also where float16 rounds 1 - 1e-6 to 1
        log_others = torch.log1p(-log_probability.exp().clamp(max=1 - 1e-6))
        mask_logits = (log_probability - log_others).clamp(max=14.0).transpose(1, 2)
        present = mask_logits.new_full((mask_logits.shape[0], mask_logits.shape[1]), CERTAIN)
        return AtmOutput(torch.stack([present, -present], 2), mask_logits)
