"""Conversion of a plain ViT that others pretrained into our encoder; what a file holds is found out from its keys."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_seg_ros.export.checkpoint_names import (
    describe_size,
    encoder_size,
    find_encoder,
    is_anonymous,
    rename_augreg,
)
from hybrid_seg_ros.export.convert_model import grid_of, renamed
from hybrid_seg_ros.model_spec import Backbone
from hybrid_seg_ros.network.checkpoint import CheckpointError

log = logging.getLogger(__name__)

ENCODER_SOURCES = ('timm', 'augreg', 'dinov2')
"""Any of them will do for any file: whose names they are is looked at."""

TOKENS = ('cls_token', 'dist_token', 'register_tokens', 'pos_embed')


@dataclass(frozen=True)
class ConvertedEncoder:
    """Weights of a `VisionTransformer(backbone, grid_hw)`."""

    state: dict[str, Tensor]
    backbone: Backbone
    grid_hw: tuple[int, int]


def convert_encoder(
    state: Mapping[str, Tensor], backbone: Backbone, *, key_prefix: str = '',
    source_size_hw: Optional[Sequence[int]] = None, patch_size: Optional[int] = None, keep_prefix_tokens: bool = True,
) -> ConvertedEncoder:  # fmt: skip
    """Return our encoder's weights out of a plain ViT's, which may be a part of a larger network.

    `backbone` says width, layers and heads; patch size, class token, registers and final norm are the file's.
    LayerScale goes into the projections that it scales. `key_prefix` chooses one of several encoders; `source_size_hw`
    is the image size of the position embedding, see `grid_of`; `patch_size`, if given, is what the patch embedding is
    resized to. Raises CheckpointError that says what the file holds instead. Names that no plain ViT has stay, marked,
    for a strict load to list them.
    """
    naming, theirs = find_encoder(state, key_prefix)
    size = encoder_size(naming, theirs)
    theirs = {key: value.float() if value.is_floating_point() else value for key, value in theirs.items()}
    if naming.rename is None:
        encoder = augreg_to_timm(theirs, backbone.num_heads)
    else:
        encoder = renamed(theirs, (('', '', naming.rename),), naming.whose)
    encoder = {**_anonymous_positions(state), **_with_joint_qkv(encoder)}
    _check_shapes(encoder, size, backbone)
    scaled = _fold_layer_scale(encoder)
    source_patch = encoder['patch_embed.proj.weight'].shape[-1]
    grid_hw = _separate_positions(encoder, source_patch, source_size_hw)
    if not keep_prefix_tokens:
        encoder.pop('register_tokens', None)
        if encoder.pop('cls_token', None) is not None:
            encoder['pos_embed'] = encoder['pos_embed'][:, 1:]
    if patch_size is not None:
        encoder['patch_embed.proj.weight'] = resize_patch_kernel(encoder['patch_embed.proj.weight'], patch_size)
    found = dataclasses.replace(
        backbone,
        patch_size=patch_size or source_patch,
        class_token='cls_token' in encoder,
        register_tokens=encoder['register_tokens'].shape[1] if 'register_tokens' in encoder else 0,
        final_norm='norm.weight' in encoder,
    )
    log.info(
        'names of %s: %d layers of %d channels, patches of %d, %s class token, %d register tokens, %s final norm%s',
        naming.whose, found.depth, found.embed_dim, found.patch_size, 'a' if found.class_token else 'no',
        found.register_tokens, 'a' if found.final_norm else 'no', ', LayerScale folded' if scaled else '',
    )  # fmt: skip
    return ConvertedEncoder(encoder, found, grid_hw)


def resize_patch_kernel(kernel: Tensor, side: int) -> Tensor:
    """Resize a patch embedding's weights (C, 3, p, p) to (C, 3, side, side), in float64.

    A patch resized by B (bilinear) then has the embedding that it had: w' = pinv(B^T) w (FlexiViT, Beyer et al. 2023,
    section 3.4). With a larger side it is exactly the same for every patch, with a smaller one as nearly as can be.
    """
    if side < 1:
        raise CheckpointError(f'patch size: expected at least 1 pixel, got {side}')
    old = kernel.shape[-1]
    if old == side:
        return kernel
    pixels = torch.eye(old * old, dtype=torch.float64).view(-1, 1, old, old)
    resized = F.interpolate(pixels, size=(side, side), mode='bilinear', align_corners=False, antialias=True)
    matrix = torch.linalg.pinv(resized.flatten(1))  # (old^2, side^2) transposed, inverted: (side^2, old^2)
    return (kernel.double().flatten(2) @ matrix.T).unflatten(2, (side, side)).to(kernel.dtype)


def _anonymous_positions(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find the position embedding in an ONNX graph, which holds its parts, for the class token and the cells, apart.

    That of the class token is (1, 1, C), that of the cells (1, cells, C), or (1, C, rows, columns) to be resized.
    """
    parts = [value for key, value in state.items() if is_anonymous(key) and value.ndim in (3, 4) and len(value) == 1]
    if not parts:
        return {}
    rows = [part if part.ndim == 3 else part.flatten(2).transpose(1, 2) for part in parts]
    rows.sort(key=lambda part: part.shape[1])
    counts = [part.shape[1] for part in rows]
    if len(rows) > 2 or counts[-1] < 2 or (len(rows) == 2 and counts[0] != 1) or len({len(r[0, 0]) for r in rows}) > 1:
        shapes = ', '.join(str(tuple(part.shape)) for part in parts)
        raise CheckpointError(
            f'position embedding: expected (1, 1, channels) and (1, cells, channels) in the graph, got {shapes}'
        )
    return {'pos_embed': torch.cat(rows, 1)}


def _with_joint_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join query, key and value of each block; an incomplete triple stays as it is, for a strict load to list."""
    state = dict(state)
    for query in [name for name in state if '.attn.query.' in name]:
        triple = [query.replace('.query.', f'.{part}.') for part in ('query', 'key', 'value')]
        if all(name in state for name in triple):
            state[query.replace('.query.', '.qkv.')] = torch.cat([state.pop(name) for name in triple])
    return state


def _check_shapes(state: Mapping[str, Tensor], size: tuple[int, int], backbone: Backbone) -> None:
    kernel = state['patch_embed.proj.weight']
    if kernel.ndim != 4 or kernel.shape[1] != 3 or kernel.shape[2] != kernel.shape[3]:
        raise CheckpointError(
            f'patch embedding: expected (channels, 3, side, side), for RGB images, got {tuple(kernel.shape)}'
        )
    depth, width = size
    if (width, depth) != (backbone.embed_dim, backbone.depth):
        raise CheckpointError(
            f'expected {backbone.depth} layers of {backbone.embed_dim} channels, as declared; '
            + describe_size(depth, width)
        )
    first, second = (state.get(f'blocks.0.mlp.fc{number}.weight') for number in (1, 2))
    if first is not None and second is not None and first.shape != second.T.shape:
        raise CheckpointError(f'expected a plain ViT, got a ViT with SwiGLU, as ViT-g of DINOv2: {tuple(first.shape)}')
    for key in TOKENS:
        value = state.get(key)
        if value is not None and (value.ndim != 3 or len(value) != 1 or value.shape[2] != width):
            raise CheckpointError(f'{key}: expected (1, tokens, {width}), got {tuple(value.shape)}')
    if 'pos_embed' not in state:
        raise CheckpointError('expected a position embedding, got none: a ViT with rotary positions (DINOv3, EVA)?')


def _fold_layer_scale(state: dict[str, Tensor]) -> bool:
    """Scale the rows of what LayerScale follows: gamma * (W x + b) = (gamma W) x + gamma b.

    Returns whether there was any. Scales without such rows stay, for a strict load to list them.
    """
    scales = [key for key in state if re.fullmatch(r'blocks\.\d+\.ls[12]', key)]
    for key in scales:
        projection = key.replace('ls1', 'attn.proj').replace('ls2', 'mlp.fc2')
        weight, bias, gamma = (state.get(name) for name in (f'{projection}.weight', f'{projection}.bias', key))
        if weight is None or bias is None or not len(weight) == len(bias) == gamma.numel():
            continue
        del state[key]
        state[f'{projection}.weight'], state[f'{projection}.bias'] = gamma[:, None] * weight, gamma * bias
    return bool(scales)


def _separate_positions(
    state: dict[str, Tensor], patch_size: int, size_hw: Optional[Sequence[int]]
) -> tuple[int, int]:
    """Give the position embedding an entry for the class token, if there is one, and for each cell; return its grid.

    Registers, and DeiT's distillation token, which is one more, have theirs added once and for all. Files have entries
    for no token in front of the cells, for the class token, or for all of them.
    """
    registers = [state.pop(key) for key in ('dist_token', 'register_tokens') if key in state]
    register_tokens = torch.cat(registers, 1) if registers else state['pos_embed'][:, :0]
    num_class, num_registers = int('cls_token' in state), register_tokens.shape[1]
    count, width = state['pos_embed'].shape[1:]
    possible = sorted({0, num_class, num_class + num_registers}, key=lambda entries: entries != num_class)
    fitting = [entries for entries in possible if _is_grid(count - entries, patch_size, size_hw)]
    entries = (fitting or possible)[0]
    grid_hw = grid_of(count - entries, patch_size, size_hw)
    prefix, cells = state['pos_embed'].split([entries, count - entries], 1)
    class_position, register_position = prefix[:, :num_class], prefix[:, num_class:]
    if entries < num_class:
        log.warning('position embedding: taken for one without an entry for the class token')
        class_position = torch.zeros(1, 1, width)
    state['pos_embed'] = torch.cat([class_position, cells], 1)
    if num_registers:
        state['register_tokens'] = register_tokens + (register_position if register_position.shape[1] else 0.0)
    return grid_hw


def _is_grid(count: int, patch_size: int, size_hw: Optional[Sequence[int]]) -> bool:
    if size_hw is None:
        return count > 0 and math.isqrt(count) ** 2 == count
    return count == (size_hw[0] // patch_size) * (size_hw[1] // patch_size)


def augreg_to_timm(arrays: Mapping[str, Tensor], num_heads: int) -> dict[str, Tensor]:
    """Rename and transpose; query, key and value stay apart, the classifier is dropped, unknown names stay, marked.

    Raises CheckpointError if the arrays have another number of heads than declared: here, unlike in timm's layout,
    it can be seen.
    """
    result: dict[str, Tensor] = {}
    for key, array in arrays.items():
        try:
            name = rename_augreg(key)
        except KeyError:
            name = f'{key} (unknown to augreg)'
        if name is not None:
            result[name] = _to_torch_layout(name, array, num_heads)
    return result


def _to_torch_layout(name: str, array: Tensor, num_heads: int) -> Tensor:
    """Flax keeps inputs first: (in, out), (height, width, in, out), and attention as (in, heads, d)."""
    if '.attn.' in name and array.ndim > 1:
        heads = array.shape[1 if '.weight' in name and '.proj.' not in name else 0]
        if heads != num_heads:
            raise CheckpointError(f'augreg: {name}: expected {num_heads} heads, got {heads}')
    if array.ndim == 4:
        return array.permute(3, 2, 0, 1).contiguous()  # (out, in, height, width)
    if name.endswith('.proj.weight') and array.ndim == 3:
        return array.flatten(0, 1).T.contiguous()  # (out, heads * d)
    if name.endswith('.weight') and array.ndim == 3:
        return array.flatten(1).T.contiguous()  # (heads * d, in)
    if name.endswith('.weight') and array.ndim == 2:
        return array.T.contiguous()  # (out, in)
    if name.endswith('.bias'):
        return array.flatten()
    return array
