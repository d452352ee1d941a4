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
from hybrid_seg_ros.model_spec import sha256_of
from hybrid_seg_ros.network.checkpoint import CheckpointError, load_strictly, resize_position_embedding
from hybrid_seg_ros.network.convert_checkpoint import without_unused_class_token
from hybrid_seg_ros.network.segmenter import HybridSegmenter

CONTENT = 'hybrid_seg_ros encoder'
"""Marks the files of this module in their metadata."""


def save_encoder(
    state: Mapping[str, Tensor], path: Union[str, Path], grid_hw: tuple[int, int], dtype: torch.dtype = torch.float32
) -> str:
    """Write an encoder's weights, whole or not at all, with the grid of its position embedding; returns the sha256."""
    metadata = {'format': 'pt', 'content': CONTENT, 'grid_hw': f'{grid_hw[0]} {grid_hw[1]}'}
    with whole_file(path) as partial:
        stored = {key: value.to(dtype).contiguous() for key, value in state.items()}
        partial.write_bytes(save(stored, metadata=metadata))  # save_file's files can be read by their owner alone
        return sha256_of(partial)


def load_encoder(model: HybridSegmenter, path: Union[str, Path]) -> None:
    """Copy the encoder weights of a file into `model.encoder`; the rest of the model stays as it is.

    The position embedding is resized to the model's input size. Class token and final norm are left out where the
    model has none. Raises FileNotFoundError, or CheckpointError that lists missing, unexpected and mis-shaped keys.
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
        raise CheckpointError(f'{path}: expected encoder weights as `hybrid_seg convert timm|augreg` writes them')
    height, width = (int(side) for side in metadata['grid_hw'].split())
    if 'pos_embed' in state:
        prefix = int('cls_token' in state)
        state['pos_embed'] = resize_position_embedding(
            state['pos_embed'].float(), prefix, (height, width), model.encoder.grid_hw
        )
    state = without_unused_class_token(state, model.encoder.config)
    if model.encoder.norm is None:
        state = {key: value for key, value in state.items() if not key.startswith('norm.')}
    load_strictly(model.encoder, state, str(path))
