"""Files that others wrote: read without running code in them; what is damaged or ambiguous is named."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from hybrid_seg_ros.export.weight_file import read_weights
from hybrid_seg_ros.network.checkpoint import CheckpointError

STATE = {'a.weight': torch.arange(3000.0), 'a.bias': torch.ones(2)}


def write(path: Path, content: dict = STATE) -> Path:
    if path.suffix == '.npz':
        np.savez(path, **{key: value.numpy() for key, value in content.items()})
    elif path.suffix == '.safetensors':
        save_file(content, path)
    elif path.suffix == '.onnx':
        arrays = [onnx.numpy_helper.from_array(value.numpy(), key) for key, value in content.items()]
        counts = onnx.numpy_helper.from_array(np.arange(3), 'no.weights')
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], 'g', [], [], [*arrays, counts])), path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=path.stem != 'legacy')
    return path


def assert_state(state: dict) -> None:
    assert set(state) == set(STATE)
    assert all(torch.equal(state[key], value) for key, value in STATE.items())


@pytest.mark.parametrize('name', ['w.pth', 'w.pt', 'w.bin', 'w.ckpt', 'legacy.pth', 'w.safetensors', 'w.npz', 'w.onnx'])
def test_every_format(tmp_path: Path, name: str) -> None:
    assert_state(read_weights(write(tmp_path / name)))


@pytest.mark.parametrize('name', ['w.pth', 'legacy.pth', 'w.safetensors', 'w.npz', 'w.onnx'])
@pytest.mark.parametrize('length', [0, 1, 50, 300, 5000, -10])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, length: int) -> None:
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError) as info:
        read_weights(path)
    assert str(path) in str(info.value)


class RunsCode:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('name', ['w.pth', 'legacy.pth'])
@pytest.mark.parametrize('wanted', ['system', 'argparse.Namespace'])
def test_a_pickle_with_code_is_refused(tmp_path: Path, name: str, wanted: str) -> None:
    extra = RunsCode(tmp_path / 'ran') if wanted == 'system' else argparse.Namespace(epochs=3)
    path = write(tmp_path / name, {'state_dict': STATE, 'meta': extra})
    with pytest.raises(CheckpointError, match='refused') as info:
        read_weights(path)
    assert wanted in str(info.value) and str(path) in str(info.value)
    assert not (tmp_path / 'ran').exists()


def test_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / 'w.npz', a=np.array([RunsCode(tmp_path / 'ran')], dtype=object))
    with pytest.raises(CheckpointError, match='allow_pickle'):
        read_weights(tmp_path / 'w.npz')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    'content, entry, complaint',
    [
        ({'state_dict': STATE, 'meta': {'epoch': 1}}, None, None),
        ({'model': STATE, 'optimizer': {'state': {}}, 'epoch': 3}, None, None),
        ({'state_dict': STATE, 'state_dict_ema': {'b': torch.zeros(1)}}, 'state_dict', None),
        ({'state_dict': STATE, 'state_dict_ema': STATE}, None, 'name one with --entry'),
        ({'state_dict': STATE}, 'ema', r"no entry 'ema' with weights; there are \['state_dict'\]"),
        ({'epoch': 3}, None, 'with weights none'),
        ({}, None, 'expected weights'),
        ([1, 2], None, 'expected a mapping'),
    ],
)
def test_entries(tmp_path: Path, content, entry, complaint) -> None:
    torch.save(content, tmp_path / 'w.pth')
    if complaint is None:
        assert_state(read_weights(tmp_path / 'w.pth', entry))
        return
    with pytest.raises(CheckpointError, match=complaint):
        read_weights(tmp_path / 'w.pth', entry)


def test_prefix(tmp_path: Path) -> None:
    wrapped = {f'module.{key}': value for key, value in STATE.items()}
    assert_state(read_weights(write(tmp_path / 'w.pth', wrapped), key_prefix='module.'))
    path = write(tmp_path / 'x.pth', {**wrapped, 'step': torch.ones(1)})
    assert_state(read_weights(path, key_prefix='module.'))
    with pytest.raises(CheckpointError, match=r"expected keys that start with 'ema\.', got none: module\.\w+"):
        read_weights(path, key_prefix='ema.')


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no such file'):
        read_weights(tmp_path / 'w.pth')
    with pytest.raises(FileNotFoundError, match='a folder; give the file in it'):
        read_weights(tmp_path)
    (tmp_path / 'w.h5').write_bytes(b'')
    with pytest.raises(CheckpointError, match='ends with .pth'):
        read_weights(tmp_path / 'w.h5')
    (tmp_path / 'page.pth').write_text('<!DOCTYPE html><html>not found</html>')
    with pytest.raises(CheckpointError, match='damaged, or no PyTorch file'):
        read_weights(tmp_path / 'page.pth')
