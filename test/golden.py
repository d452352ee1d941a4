"""Reading the reference files: outputs of the official SegViT, DToP and CTS code on random weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from torch import Tensor


def golden_dir() -> Path:
    """Return the folder of the reference files."""
    return Path(os.environ.get('HYBRID_SEG_GOLDEN_DIR') or Path(__file__).parent / 'data' / 'golden')


def golden_files() -> list[Path]:
    """List every reference file."""
    return sorted(golden_dir().glob('*.npz'))


@dataclass(frozen=True)
class Golden:
    """One reference file: `meta`, and its arrays as tensors by the part in front of the slash."""

    path: Path
    meta: dict
    state: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> 'Golden':
        """Read a file; the state dict may stand in the file that `sd_file` names."""
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(str(archive['meta']))
            parts: dict[str, dict[str, Tensor]] = {'sd': {}, 'in': {}, 'out': {}}
            for key in archive.files:
                if key != 'meta':
                    part, name = key.split('/', 1)
                    parts[part][name] = torch.from_numpy(archive[key])
        if not parts['sd'] and meta.get('sd_file') not in (None, path.name):
            parts['sd'] = cls.read(path.with_name(meta['sd_file'])).state
        return cls(path, meta, parts['sd'], parts['in'], parts['out'])

    def renamed(self, name_of: Callable[[str], Optional[str]], prefix: str = '') -> dict[str, Tensor]:
        """Return the state below `prefix` under our names; dropped keys left out."""
        pairs = ((name_of(key[len(prefix) :]), value) for key, value in self.state.items() if key.startswith(prefix))
        return {name: value for name, value in pairs if name is not None}


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Compare in float64: the largest difference, relative to the largest value where that exceeds 1.

    The reference is float32 itself: against our network in float64 its values of up to 20 are off by up to 2e-5.
    """
    assert tuple(actual.shape) == tuple(expected.shape), f'shape {tuple(actual.shape)} != {tuple(expected.shape)}'
    error = (actual.double() - expected.double()).abs().max().item() / max(1.0, expected.abs().max().item())
    assert error <= tolerance, f'max error {error:.3g} > {tolerance:g}'


def weights_by_recipe(network: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights as the file's `recipe` describes them."""
    state = {k: v for k, v in network.state_dict().items() if not k.endswith('num_batches_tracked')}
    weights = {}
    for position, key in enumerate(sorted(state)):
        shape = tuple(state[key].shape)
        index = np.arange(int(np.prod(shape)), dtype=np.float64)
        wave = np.sin((index + 1) * (12.9898 + 0.37 * position + 0.01 * seed) + 78.233 * (position + 1)) * 43758.5453
        value = ((wave - np.floor(wave)) * 2 - 1).reshape(shape)
        if len(shape) == 4:
            value = value * np.sqrt(6 / np.prod(shape[1:]))
        elif key.endswith('running_var'):
            value = 1 + 0.5 * value
        elif key.endswith('running_mean'):
            value = 0.1 * value
        elif key.endswith('weight'):
            value = 1 + 0.3 * value
        else:
            value = 0.1 * value
        weights[key] = torch.from_numpy(value.astype(np.float32))
    return weights
