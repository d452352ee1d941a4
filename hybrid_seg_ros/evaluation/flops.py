"""`hybrid_seg flops`: what a variant costs, everything counted, in fvcore's convention.

A multiply-add is 1; layer norm 5 and batch norm 2 per element, bilinear upsampling 4 per output element; softmax,
GELU, additions and sorting are not counted. Attention is counted although fvcore misses PyTorch's fused one. Token
counts enter the formulas, so that threshold pruning is counted per image.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Optional

import torch
from torch import nn

from hybrid_seg_ros.evaluation.text_file import replace_text
from hybrid_seg_ros.label_space import LabelSpace, distinct_colors
from hybrid_seg_ros.model_spec import (
    AUXILIARY_HEADS,
    BACKBONES,
    PAPER_VARIANTS,
    POLICIES,
    REFINED_STRIDE,
    REFINEMENTS,
    STEMS,
    Backbone,
    Decoder,
    Keep,
    ModelSpec,
    TokenBudget,
    Variant,
)
from hybrid_seg_ros.network.mask_refinement import CHANNELS as REFINEMENT_CHANNELS
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.token_counts import count_merged_windows, kept_count

LAYER_NORM, BATCH_NORM, BILINEAR = 5, 2, 4


@dataclass(frozen=True)
class FlopCount:
    """Multiply-adds per component; `stem` is the shared trunk and what brings its features into the tokens."""

    embedding: float = 0.0
    stem: float = 0.0
    policy: float = 0.0
    blocks: float = 0.0
    auxiliary_heads: float = 0.0
    head: float = 0.0
    refinement: float = 0.0
    upsampling: float = 0.0

    @property
    def total(self) -> float:
        """Multiply-adds of everything."""
        return sum(dataclasses.asdict(self).values())

    def gflops(self) -> dict[str, float]:
        """Return GFLOPs per component and in total."""
        counts = {**dataclasses.asdict(self), 'total': self.total}
        return {name: count / 1e9 for name, count in counts.items()}


def count_flops(
    spec: ModelSpec, size_hw: tuple[int, int], variant: Variant, entering: float,
    kept: Sequence[tuple[int, float]] = (),
) -> FlopCount:  # fmt: skip
    """Count one image of `size_hw` of which `entering` tokens enter the encoder and `kept` (layer, tokens) go on."""
    patch, width, classes = spec.backbone.patch_size, spec.backbone.embed_dim, len(spec.classes)
    grid_hw = spec.backbone.grid_hw(size_hw)
    padded_hw = (grid_hw[0] * patch, grid_hw[1] * patch)
    cells = grid_hw[0] * grid_hw[1]
    embedded = cells + ((grid_hw[0] // 2) * (grid_hw[1] // 2) if variant.merges else 0)
    convolutions = convolution_flops(_without_weights(spec), padded_hw)
    stem = convolutions['trunk'] if spec.runs_trunk(variant.merges) else 0.0
    stem += convolutions['stem'] + (BILINEAR * cells * width if spec.stem == 'deep_trunk' else 0.0)
    blocks, auxiliary, layer, tokens = 0.0, 0.0, 0, float(entering)
    for end, remaining in (*kept, (spec.backbone.depth, 0)):
        blocks += (end - layer) * block_flops(tokens + spec.backbone.class_token, width)
        if end < spec.backbone.depth:
            auxiliary += _auxiliary_head_flops(spec, tokens)
            layer, tokens = end, remaining
    return FlopCount(
        embedding=embedded * 3 * patch * patch * width,
        stem=stem,
        policy=convolutions['policy'] if variant.merges else 0.0,
        blocks=blocks,
        auxiliary_heads=auxiliary,
        head=_head_flops(spec, tokens),
        refinement=convolutions['refinement'] + _refinement_upsampling_flops(spec, padded_hw),
        upsampling=BILINEAR * classes * padded_hw[0] * padded_hw[1],
    )


def expected_tokens(
    spec: ModelSpec, size_hw: tuple[int, int], variant: Variant, budget: TokenBudget
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return (entering, kept) for a fixed keep; a model that prunes by threshold needs an image to know."""
    grid_hw = spec.backbone.grid_hw(size_hw)
    entering = grid_hw[0] * grid_hw[1]
    if variant.merges:
        entering -= 3 * count_merged_windows(grid_hw, budget.merged_windows)
    kept, tokens = [], entering
    for stage, layer in enumerate(variant.prune_layers):
        keep = budget.keep_at(stage)
        if keep is None:
            raise ValueError('pruning by threshold depends on the image; give a fixed keep')
        tokens = kept_count(tokens, keep)
        kept.append((layer, tokens))
    return entering, tuple(kept)


def block_flops(tokens: float, width: int) -> float:
    """One transformer block: 12 N d^2 + 2 N^2 d + 10 N d."""
    return 12.0 * tokens * width**2 + 2.0 * tokens**2 * width + 2 * LAYER_NORM * tokens * width


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


def light_head_flops(tokens: float, in_dim: int, classes: int, hidden: int) -> float:
    """One light auxiliary head."""
    return float(tokens) * (LAYER_NORM * in_dim + in_dim * hidden + hidden * classes)


@lru_cache(maxsize=64)
def convolution_flops(spec: ModelSpec, size_hw: tuple[int, int]) -> dict[str, float]:
    """Return multiply-adds of the convolutions and norms of trunk, stem, policy and refinement, as far as they exist.

    `size_hw` are multiples of the patch. Counted by running the modules without data.
    """
    parts = ('trunk', 'stem', 'policy', 'refinement')
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
    trunk = None if network.trunk is None else network.trunk.pyramid(image)
    if network.stem is not None:
        network.stem(trunk)
    if network.policy is not None:
        network.policy(image, trunk, network.encoder.patch_embed.embed(image))
    if network.refinement is not None:
        masks = torch.empty(1, len(spec.classes), *spec.backbone.grid_hw(size_hw), device='meta')
        network.refinement(masks, masks, trunk)
    return counts


def _without_weights(spec: ModelSpec) -> ModelSpec:
    """Return what of a spec decides the counts of `convolution_flops`, so that specs share them."""
    return dataclasses.replace(spec, name='flops', weights=None, sha256=None, budget=TokenBudget(), variant=Variant())


def _refinement_upsampling_flops(spec: ModelSpec, size_hw: tuple[int, int]) -> float:
    """Bilinear upsampling of masks, their projection and the stride-8 features to stride 4."""
    if spec.refinement == 'none':
        return 0.0
    cells = (size_hw[0] // REFINED_STRIDE) * (size_hw[1] // REFINED_STRIDE)
    return float(BILINEAR * cells * (len(spec.classes) + 2 * REFINEMENT_CHANNELS))


def _auxiliary_head_flops(spec: ModelSpec, tokens: float) -> float:
    width, classes = spec.backbone.embed_dim, len(spec.classes)
    if spec.auxiliary_head == 'light':
        return light_head_flops(tokens, width, classes, spec.decoder_dim)
    return atm_head_flops(tokens, width, classes, spec.decoder_dim, spec.decoder.layers)


def _head_flops(spec: ModelSpec, tokens: float) -> float:
    width, classes, decoder = spec.backbone.embed_dim, len(spec.classes), spec.decoder
    norm = LAYER_NORM * tokens * width if spec.backbone.final_norm else 0
    if spec.head == 'atm':
        return norm + atm_head_flops(tokens, width, classes, spec.decoder_dim, decoder.layers)
    if spec.head in ('segvit_atm', 'segvit_atm_v2'):
        with_self = spec.head == 'segvit_atm'
        stages = len(spec.auxiliary_layers) + 1
        one = atm_decoder_flops(tokens, width, classes, spec.decoder_dim, decoder.layers, with_self)
        outputs = classes + 1 if with_self else 2
        return norm + stages * one + classes * spec.decoder_dim * outputs
    if spec.head == 'linear':
        return norm + float(tokens * width * classes)
    blocks = decoder.layers * block_flops(tokens + classes, width)
    projections = (2 * tokens + classes) * width**2 + tokens * classes * width
    norms = LAYER_NORM * ((tokens + classes) * width + tokens * classes)
    return norm + blocks + projections + norms


def flops_table(
    backbone: Backbone, classes: int, size_hw: tuple[int, int], keep: Keep, decoder: Optional[Decoder] = None,
    stem: str = 'patch', policy: str = 'efficientnet_lite0', merged_windows: Keep = 103 / 256,
    auxiliary_head: str = 'atm', refinement: str = 'none',
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Return GFLOPs per component for each of the paper's variants, with a fixed keep at each pruning layer."""
    names = tuple(f'class {index}' for index in range(classes))
    spec = ModelSpec(
        'flops', backbone, LabelSpace(names, distinct_colors(classes)), size_hw, stem=stem, policy=policy,
        decoder=decoder or Decoder(), auxiliary_head=auxiliary_head, refinement=refinement,
    )  # fmt: skip
    budget = TokenBudget(keep=(keep,), merged_windows=merged_windows)
    table = {}
    for name in spec.legal_variants():
        variant = Variant.parse(name)
        entering, kept = expected_tokens(spec, size_hw, variant, budget)
        counts = count_flops(spec, size_hw, variant, entering, kept).gflops()
        table[name] = {'tokens': entering, **{f'kept@{layer}': n for layer, n in kept}, **counts}
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--backbone', choices=sorted(BACKBONES), default='vit_tiny')
    parser.add_argument('--classes', type=int, default=150, help='number of classes (default: %(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=(512, 512), metavar=('H', 'W'), help='input size')
    parser.add_argument('--keep', type=float, default=0.6, help='fraction kept at each pruning layer (%(default)s)')
    parser.add_argument('--decoder-layers', type=int, default=3, help='layers per ATM decoder (default: %(default)s)')
    parser.add_argument('--decoder-dim', type=int, help='channels of the ATM decoders (default: half of the backbone)')
    parser.add_argument('--stem', choices=STEMS, default='patch')
    parser.add_argument('--policy', choices=[name for name in POLICIES if name != 'none'], default='efficientnet_lite0')
    parser.add_argument('--auxiliary-head', choices=AUXILIARY_HEADS, default='atm')
    parser.add_argument('--refinement', choices=REFINEMENTS, default='none')
    parser.add_argument('--json', type=Path, help='write the table here')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    decoder = Decoder(dim=args.decoder_dim, layers=args.decoder_layers)
    table = flops_table(
        BACKBONES[args.backbone], args.classes, tuple(args.size), args.keep, decoder, args.stem, args.policy,
        auxiliary_head=args.auxiliary_head, refinement=args.refinement,
    )  # fmt: skip
    columns = [field.name for field in dataclasses.fields(FlopCount)] + ['total']
    print(f'GFLOPs (multiply-add = 1), {args.backbone}, {args.classes} classes, {args.size[0]}x{args.size[1]}, '
          f'keep {args.keep}')  # fmt: skip
    print(f'{"variant":<11}{"tokens":>7}' + ''.join(f'{column:>16}' for column in columns))
    for name in PAPER_VARIANTS:
        if name in table:
            row = table[name]
            print(f'{name:<11}{row["tokens"]:>7}' + ''.join(f'{row[column]:>16.3f}' for column in columns))
    if args.json:
        replace_text(args.json, json.dumps(table, indent=2) + '\n')
    return 0
