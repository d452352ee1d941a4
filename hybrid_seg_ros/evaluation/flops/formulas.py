"""Multiply-adds of blocks, heads and convolutions in fvcore's convention, from token counts.

A multiply-add is 1; layer norm 5 and batch norm 2 per element, bilinear upsampling 4 per output element; softmax,
GELU, additions and sorting are not counted. Attention is counted although fvcore misses PyTorch's fused one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn

from hybrid_seg_ros.model_spec import REFINED_STRIDE, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.mask_refinement import CHANNELS as REFINEMENT_CHANNELS
from hybrid_seg_ros.network.segmenter import HybridSegmenter

LAYER_NORM, BATCH_NORM, BILINEAR = 5, 2, 4


def block_flops(tokens: float, width: int) -> float:
    """One transformer block: 12 N d^2 + 2 N^2 d + 10 N d."""
    return 12.0 * tokens * width**2 + 2.0 * tokens**2 * width + 2 * LAYER_NORM * tokens * width


def auxiliary_head_flops(spec: ModelSpec, tokens: float) -> float:
    """One auxiliary head of a model, on the tokens of the layer that it stands behind."""
    width, classes = spec.backbone.embed_dim, len(spec.classes)
    if spec.auxiliary_head == 'light':
        return light_head_flops(tokens, width, classes)
    return atm_head_flops(tokens, width, classes, spec.decoder_dim, spec.decoder.layers)


def head_flops(spec: ModelSpec, tokens: float) -> float:
    """Head of a model, all its stages, on the tokens of the last layer; the final norm before it counts here."""
    width, classes, decoder = spec.backbone.embed_dim, len(spec.classes), spec.decoder
    norm = LAYER_NORM * (tokens + spec.backbone.num_prefix_tokens) * width if spec.backbone.final_norm else 0
    if spec.head == 'atm':
        return norm + atm_head_flops(tokens, width, classes, spec.decoder_dim, decoder.layers)
    if spec.head == 'light':
        return norm + light_head_flops(tokens, width, classes)
    if spec.head in ('segvit_atm', 'segvit_atm_v2'):
        with_self = spec.head == 'segvit_atm'
        stages = len(spec.auxiliary_layers) + 1
        one = atm_decoder_flops(tokens, width, classes, spec.decoder_dim, decoder.layers, with_self)
        outputs = classes + 1 if with_self else 2
        return norm + stages * one + classes * spec.decoder_dim * outputs
    if spec.head == 'linear':
        return norm + float(tokens * width * classes)
    return norm + mask_transformer_flops(tokens, width, classes, decoder.layers)


def upsampling_flops(spec: ModelSpec, size_hw: tuple[int, int]) -> float:
    """Bilinear upsampling of every class to `size_hw`; SegViT's heads mix the masks of all queries there as well."""
    classes, pixels = len(spec.classes), size_hw[0] * size_hw[1]
    mixed = classes if spec.scores_kind == 'mask_logits' else 0
    return float((BILINEAR + mixed) * classes * pixels)


def refinement_upsampling_flops(spec: ModelSpec, size_hw: tuple[int, int]) -> float:
    """Bilinear upsampling of masks and their projection to stride 4."""
    if spec.refinement == 'none':
        return 0.0
    cells = (size_hw[0] // REFINED_STRIDE) * (size_hw[1] // REFINED_STRIDE)
    return float(BILINEAR * cells * (len(spec.classes) + REFINEMENT_CHANNELS))


def atm_decoder_flops(
    tokens: float, in_dim: int, queries: int, dim: int, layers: int, self_attention: bool = True
) -> float:
    """Projection and layers of one ATM decoder."""
    norms = (3 if self_attention else 2) * LAYER_NORM * queries * dim
    layer = 2 * tokens * dim**2 + 10 * queries * dim**2 + 2 * queries * tokens * dim + norms
    if self_attention:
        layer += 4 * queries * dim**2 + 2 * queries**2 * dim
    return float(tokens * in_dim * dim + LAYER_NORM * tokens * dim + layers * layer)


def atm_head_flops(tokens: float, in_dim: int, classes: int, dim: int, layers: int) -> float:
    """One single-stage ATM head."""
    return atm_decoder_flops(tokens, in_dim, classes, dim, layers) + 2.0 * classes * dim


def light_head_flops(tokens: float, in_dim: int, classes: int) -> float:
    """One light head."""
    return float(tokens) * (BATCH_NORM * in_dim + in_dim * classes)


def mask_transformer_flops(tokens: float, width: int, classes: int, layers: int) -> float:
    """Segmenter's mask transformer: its blocks see the tokens and an embedding per class."""
    blocks = layers * block_flops(tokens + classes, width)
    projections = (2 * tokens + classes) * width**2 + tokens * classes * width
    norms = LAYER_NORM * ((tokens + classes) * width + tokens * classes)
    return float(blocks + projections + norms)


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
            of_each = BATCH_NORM if isinstance(module, nn.BatchNorm2d) else next(module.parameters())[0].numel()
            counts[part] += output.numel() * of_each

        return add

    for part in parts:
        for module in (getattr(network, part) or nn.Identity()).modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                module.register_forward_hook(counter(part))
    if network.policy is not None:  # one that looks at patches embeds them for itself, as its own graph has to
        network.encoder.patch_embed.register_forward_hook(counter('policy'))
        network.window_logits(image)
    if network.refinement is not None:
        masks = torch.empty(1, len(spec.classes), *spec.backbone.grid_hw(size_hw), device='meta')
        network.refinement(masks, masks, network.refinement.detail(image))
    return counts


def _without_weights(spec: ModelSpec) -> ModelSpec:
    """Return what of a spec decides these counts, so that specs share them."""
    return dataclasses.replace(spec, name='flops', weights=None, sha256=None, budget=TokenBudget(), variant=Variant())
