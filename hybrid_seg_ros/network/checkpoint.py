"""Checkpoints: a ModelSpec YAML beside a safetensors file, written whole and read strictly."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Union

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hybrid_seg_ros.files import whole_file
from hybrid_seg_ros.model_spec import ModelSpec, sha256_of
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.vit import resize_grid


class CheckpointError(ValueError):
    """Weights that do not fit the model, or are damaged; the message lists what is wrong."""


def save_model(model: HybridSegmenter, path: Union[str, Path], dtype: torch.dtype = torch.float16) -> ModelSpec:
    """Write `path` (YAML) and the weights beside it (same name, .safetensors); returns the spec as written.

    Floating-point weights are stored as `dtype`. Each file is written whole or not at all, weights first. Raises
    ValueError for a name that does not end in .yaml: the weights' could be the same.
    """
    path = Path(path)
    if path.suffix != '.yaml':
        raise ValueError(f'{path}: expected a name that ends in .yaml, weights are written beside it')
    weights = path.with_suffix('.safetensors')
    state = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu()
        for key, value in model.state_dict().items()
        if not key.endswith('num_batches_tracked')
    }
    with whole_file(weights) as partial:
        # not save_file, which makes files that only their owner can read
        # one entry of metadata: several are written in no fixed order, and equal weights shall be equal files
        partial.write_bytes(save(state, metadata={'format': 'pt'}))
        with open(partial, 'rb') as stream:
            os.fsync(stream.fileno())  # a run that says it has evaluated the model must have it after a power cut
        spec = dataclasses.replace(model.spec, weights=weights.name, sha256=sha256_of(partial), folder=path.parent)
    spec.save(path)
    return spec


def load_model(spec: ModelSpec) -> HybridSegmenter:
    """Build the model of a spec and read its weights, as float32, in evaluation mode.

    Raises FileNotFoundError or CheckpointError: no weight file, sha256 differs, keys missing, unexpected or of
    another shape.
    """
    path = spec.weights_path
    if path is None:
        raise CheckpointError(f'model {spec.name}: the spec names no weights')
    if not path.is_file():
        raise FileNotFoundError(f'model {spec.name}: weight file {path} does not exist')
    digest = sha256_of(path)
    if spec.sha256 is not None and digest != spec.sha256:
        raise CheckpointError(f'{path}: expected sha256 {spec.sha256}, got {digest}: damaged, or of another model')
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f'{path}: not a safetensors file: {error}') from error
    model = HybridSegmenter(spec)
    load_strictly(model, state, str(path))
    return model.eval()


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `model`; every key must be there, no other, each of the right shape.

    Raises CheckpointError that lists missing, unexpected and mis-shaped keys.
    """
    expected = {k: v for k, v in model.state_dict().items() if not k.endswith('num_batches_tracked')}
    state = {k: v for k, v in state.items() if not k.endswith('num_batches_tracked')}
    problems = list_misfits(state, expected)
    if problems:
        raise CheckpointError(f'{source}: does not fit the model:\n  ' + '\n  '.join(problems))
    model.load_state_dict(dict(state), strict=False)


def list_misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Say of each weight of `state` or `expected` that is missing, unexpected or of another shape what is wrong."""
    problems = [f'missing {key} {tuple(value.shape)}' for key, value in expected.items() if key not in state]
    problems += [f'unexpected {key} {tuple(value.shape)}' for key, value in state.items() if key not in expected]
    return problems + [
        f'{key}: expected shape {tuple(expected[key].shape)}, got {tuple(value.shape)}'
        for key, value in state.items()
        if key in expected and expected[key].shape != value.shape
    ]


def resize_position_embedding(
    pos_embed: Tensor, num_prefix_tokens: int, from_hw: tuple[int, int], to_hw: tuple[int, int]
) -> Tensor:
    """Resize (1, prefix + H*W, C) to another patch grid, prefix entries untouched; `from_hw` is never guessed."""
    expected = num_prefix_tokens + from_hw[0] * from_hw[1]
    if pos_embed.shape[1] != expected:
        raise CheckpointError(
            f'pos_embed: expected {expected} entries for a {from_hw} grid and {num_prefix_tokens} prefix tokens, '
            f'got {pos_embed.shape[1]}'
        )
    prefix, grid = pos_embed[:, :num_prefix_tokens], pos_embed[:, num_prefix_tokens:]
    return torch.cat([prefix, resize_grid(grid, from_hw, to_hw)], 1)
