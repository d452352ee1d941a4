"""Multiply-adds of the convolutional parts of a model, counted by running them without data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn

from hybrid_seg_ros.evaluation.flop_formulas import BATCH_NORM
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter


def convolution_flops(spec: ModelSpec, size_hw: tuple[int, int]) -> dict[str, float]:
    """Return multiply-adds of the convolutions and norms of policy and refinement, as far as they exist.

    `size_hw` are multiples of the patch.
    """
    return dict(_count(_without_weights(spec), size_hw))


@lru_cache(maxsize=64)
def _count(spec: ModelSpec, size_hw: tuple[int, int]) -> dict[str, float]:
    parts = ('policy', 'refinement')
    counts = dict.fromkeys(parts, 0.0)
    with torch.device('meta'):
        network = HybridSegmenter(spec).eval()
        image = torch.empty(1, 3, *size_hw)

    def counter(part: str) -> Callable[[nn.Module, tuple, torch.Tensor], None]:
        def add(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            of_each = module.weight[0].numel() if isinstance(module, nn.Conv2d) else BATCH_NORM
            counts[part] += output.numel() * of_each

        return add

    for part in parts:
        for module in (getattr(network, part) or nn.Identity()).modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                module.register_forward_hook(counter(part))
    if network.policy is not None:  # one that looks at patches embeds them for itself, as its own graph has to
        network.encoder.patch_embed.proj.register_forward_hook(counter('policy'))
        network.window_logits(image)
    if network.refinement is not None:
        masks = torch.empty(1, len(spec.classes), *spec.backbone.grid_hw(size_hw), device='meta')
        network.refinement(masks, masks, network.refinement.detail(image))
    return counts


def _without_weights(spec: ModelSpec) -> ModelSpec:
    """Return what of a spec decides these counts, so that specs share them."""
    return dataclasses.replace(spec, name='flops', weights=None, sha256=None, budget=TokenBudget(), variant=Variant())
