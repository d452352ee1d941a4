"""Reading weight files that others wrote: PyTorch pickles (weights only), safetensors, NumPy archives."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hybrid_seg_ros.network.checkpoint import CheckpointError

log = logging.getLogger(__name__)

PICKLE_SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt')
SUFFIXES = (*PICKLE_SUFFIXES, '.safetensors', '.npz')


def read_weights(path: Union[str, Path], entry: Optional[str] = None, key_prefix: str = '') -> dict[str, Tensor]:
    """Read a state dict; `.npz` gives its arrays under their own names.

    Training code often stores the weights as one of several entries (`state_dict`, `model`). If exactly one entry holds
    weights it is taken; else `entry` names it. `key_prefix` (`module.`, say) is taken off all keys; each must have it.
    Raises FileNotFoundError or CheckpointError: damaged, or in need of code to be unpickled, which is never run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'weights {path}: no such file')
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f'{path}: expected a file that ends with {", ".join(SUFFIXES)}')
    content = _read_pickle(path) if path.suffix in PICKLE_SUFFIXES else _read_arrays(path)
    return _without_prefix(_weights_of(content, entry, path), key_prefix, path)


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r'GLOBAL (\S+)', str(error))
        if wanted is None:
            raise CheckpointError(f'{path}: damaged, or no PyTorch file') from error
        raise CheckpointError(
            f'{path}: refused: its pickle wants to call {wanted[1]}, and only tensors and plain values are read here. '
            'If you trust who made the file, write its weights alone, in an environment of their code: '
            'torch.save(torch.load(FILE, weights_only=False)["state_dict"], "weights.pth")'
        ) from error
    except (RuntimeError, EOFError, LookupError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_arrays(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        with np.load(path, allow_pickle=False) as archive:
            return {key: torch.from_numpy(archive[key]) for key in archive.files}
    except (SafetensorError, zipfile.BadZipFile, zlib.error, EOFError, OSError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f'{path}: damaged, or not what its name says: {type(error).__name__} {str(error)[:200]}')


def _weights_of(content: Any, entry: Optional[str], path: Path) -> Mapping[str, Tensor]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path}: expected a mapping of names to tensors, got {type(content).__name__}')
    candidates = [str(key) for key, value in content.items() if _is_weights(value)]
    if entry is not None:
        if entry not in candidates:
            raise CheckpointError(f'{path}: no entry {entry!r} with weights; there are {candidates or "none"}')
        return content[entry]
    if _is_weights(content):
        return content
    if len(candidates) != 1:
        raise CheckpointError(
            f'{path}: expected weights, or one entry that holds them; it has {sorted(map(str, content))}, '
            f'with weights {candidates or "none"}: name one with --entry'
        )
    log.info('%s: weights from its entry %r', path, candidates[0])
    return content[candidates[0]]


def _is_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(
        isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()
    )


def _without_prefix(state: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    without = sorted(key for key in state if not key.startswith(prefix))
    if without:
        raise CheckpointError(f'{path}: expected all keys to start with {prefix!r}; these do not: {", ".join(without)}')
    return {key[len(prefix) :]: value for key, value in state.items()}
