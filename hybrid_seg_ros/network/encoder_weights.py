"""Weights of an encoder alone, to start training from: written by `hybrid_seg convert`, put into a model here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Union

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from hybrid_seg_ros.files import whole_file
from hybrid_seg_ros.model_spec import Backbone, sha256_of
from hybrid_seg_ros.network.checkpoint import CheckpointError, load_strictly, resize_position_embedding
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.vit import VisionTransformer

CONTENT = 'hybrid_seg_ros encoder'
"""Marks the files of this module in their metadata."""


def save_encoder(encoder: VisionTransformer, path: Union[str, Path], dtype: torch.dtype = torch.float32) -> str:
    """Write an encoder's weights, whole or not at all, with its grid and number of heads; returns the sha256."""
    rows, columns = encoder.grid_hw
    metadata = {'format': 'pt', 'content': CONTENT, 'grid_hw': f'{rows} {columns}',
                'num_heads': str(encoder.config.num_heads)}  # fmt: skip
    with whole_file(path) as partial:
        stored = {key: value.to(dtype).contiguous() for key, value in encoder.state_dict().items()}
        partial.write_bytes(save(stored, metadata=metadata))  # save_file's files can be read by their owner alone
        return sha256_of(partial)


def load_encoder(model: HybridSegmenter, path: Union[str, Path]) -> None:
    """Copy the encoder weights of a file into `model.encoder`; the rest of the model stays as it is.

    The position embedding is resized to the model's input size. Class token, registers and final norm are left out
    where the model has none. Raises FileNotFoundError, or CheckpointError that lists missing, unexpected and mis-shaped
    keys, or says that its heads are not as wide as the model's: no shape shows that.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'encoder weights {path}: no such file')
    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f'{path}: damaged, or not a safetensors file: {error}') from error
    if metadata.get('content') != CONTENT:
        raise CheckpointError(f'{path}: expected encoder weights, as `hybrid_seg convert` writes them')
    height, width = (int(side) for side in metadata['grid_hw'].split())
    config = model.encoder.config
    if 'pos_embed' in state:
        prefix = int('cls_token' in state)
        state['pos_embed'] = resize_position_embedding(
            state['pos_embed'].float(), prefix, (height, width), model.encoder.grid_hw
        )
        per_head = config.embed_dim // config.num_heads
        heads = int(metadata.get('num_heads', 0))  # older files do not say
        if heads and state['pos_embed'].shape[-1] != heads * per_head:
            raise CheckpointError(f'{path}: expected heads of {per_head} channels, got {heads} heads in '
                                  f'{state["pos_embed"].shape[-1]} channels')  # fmt: skip
    own_patch = config.patch_size
    patch = state['patch_embed.proj.weight'].shape[-1] if 'patch_embed.proj.weight' in state else own_patch
    if patch != own_patch:
        raise CheckpointError(
            f'{path}: expected patches of {own_patch} pixels, got {patch}: convert with --patch-size {own_patch}'
        )
    state = without_unused_prefix_tokens(state, config)
    if model.encoder.norm is None:
        state = {key: value for key, value in state.items() if not key.startswith('norm.')}
    load_strictly(model.encoder, state, str(path))


def without_unused_prefix_tokens(state: Mapping[str, Tensor], config: Backbone) -> dict[str, Tensor]:
    """Take out of an encoder's weights the class token and its position, and registers, if the model has none.

    mmseg's backbone stores the class token even with `with_cls_token=False`, and drops it before the first block.
    """
    state = dict(state)
    if not config.register_tokens:
        state.pop('register_tokens', None)
    if not config.class_token and 'cls_token' in state:
        state.pop('cls_token')
        if 'pos_embed' in state:
            state['pos_embed'] = state['pos_embed'][:, 1:]
    return state
