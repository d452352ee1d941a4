"""Reading weight files that others wrote: PyTorch pickles (weights only), safetensors, NumPy archives, ONNX graphs."""

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
SUFFIXES = (*PICKLE_SUFFIXES, '.safetensors', '.npz', '.onnx')


def read_weights(path: Union[str, Path], entry: Optional[str] = None, key_prefix: str = '') -> dict[str, Tensor]:
    """Read a state dict; `.npz` gives its arrays under their own names, `.onnx` its initialisers: see `_read_graph`.

    Training code often stores the weights as one of several entries (`state_dict`, `model`). If exactly one entry holds
    weights it is taken; else `entry` names it. `key_prefix` (`teacher.`, say) is taken off; other keys are left out.
    Raises FileNotFoundError or CheckpointError: damaged, or in need of code to be unpickled, which is never run.
    """
    path = Path(path)
    if not path.is_file():
        problem = 'a folder; give the file in it' if path.is_dir() else 'no such file'
        raise FileNotFoundError(f'weights {path}: {problem}')
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f'{path}: expected a file that ends with {", ".join(SUFFIXES)}')
    if path.suffix == '.onnx':
        content = _read_graph(path)
    else:
        content = _read_pickle(path) if path.suffix in PICKLE_SUFFIXES else _read_arrays(path)
    return _behind(key_prefix, _weights_of(content, entry, path), path)


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


def _read_graph(path: Path) -> dict[str, Tensor]:
    """Read the floating-point initialisers of an ONNX graph, in PyTorch's layout.

    The exporter stores the matrix of a linear layer as (in, out) under a name that it makes up. The bias that is added
    to the product has its own, and says whose matrix it is.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx.checker import ValidationError
    except ImportError as error:
        raise CheckpointError(f'{path}: to read it, the package onnx is needed: {error}') from error
    try:
        graph = onnx.load(path).graph
        arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except (DecodeError, ValidationError, OSError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items() if array.dtype.kind == 'f'}
    matrices = {node.output[0]: node.input[1] for node in graph.node if node.op_type == 'MatMul'}
    for node in graph.node:
        products = [name for name in node.input if matrices.get(name) in arrays] if node.op_type == 'Add' else []
        biases = [name for name in node.input if name.endswith('bias') and name in state]
        if products and biases:
            matrix = matrices[products[0]]
            state.pop(matrix, None)
            state[biases[0].removesuffix('bias') + 'weight'] = torch.from_numpy(arrays[matrix].T.copy())
    return state


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


def _behind(prefix: str, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    if not found:
        raise CheckpointError(f'{path}: expected keys that start with {prefix!r}, got none: {", ".join(state)[:200]}')
    return found
