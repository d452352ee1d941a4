"""A training run that takes milliseconds a step, in this process or in others."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from camvid_folder import write_camvid_folder
from tiny_model import tiny_spec

from hybrid_seg_ros.data.camvid import CAMVID_CLASSES
from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.training.train_config import TrainConfig

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, '-m', 'hybrid_seg_ros.cli']
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--local-addr', '127.0.0.1']
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo',
               'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'test'), str(ROOT / 'test' / 'training')])}
TIMEOUT_S = 250


def tiny_config(**changes: Any) -> TrainConfig:
    """Return a configuration of 12 steps with two variants and every kind of loss."""
    spec = tiny_spec(input_size_hw=(64, 96), variant=Variant(), budget=TokenBudget(threshold=0.9)).to_dict()
    fields = {
        'model': {**spec, 'classes': 'dataset', 'policy': 'patch_mlp'},
        'crop_hw': (64, 64), 'scale': (0.9, 1.1), 'batch_size': 2, 'steps': 12, 'learning_rate': 3e-3,
        'head_factor': 1.0, 'warmup_steps': 2, 'ema_decay': 0.9,
        'variants': ('dense', 'hybrid@6+8'), 'pixel_weight': 1.0, 'policy_weight': 1.0, 'precision': 'float32',
        'evaluate_every': 100, 'save_every': 5, 'loss_stride': 2,
    }  # fmt: skip
    return TrainConfig(**{**fields, **changes})


def log_rows(run_dir: Path) -> list[dict[str, str]]:
    """Return the rows of log.csv without the times."""
    with open(run_dir / 'log.csv', newline='', encoding='utf-8') as stream:
        return [{name: value for name, value in row.items() if name != 'seconds'} for row in csv.DictReader(stream)]


def same_state(first: Path, second: Path, parts: Sequence[str] = ('model', 'average')) -> bool:
    """Tell whether two state.pt hold the same numbers, bit by bit."""
    states = [torch.load(path, weights_only=True) for path in (first, second)]
    return all(torch.equal(states[0][part][name], value) for part in parts for name, value in states[1][part].items())


def run_arguments(config: Path, root: Path, run_dir: Path) -> list[str]:
    """Return the options of a training command."""
    return ['--config', str(config), '--root', str(root), '--run-dir', str(run_dir)]


def write_dataset(folder: Path, train: int, val: int) -> Path:
    """Write a small dataset that can be opened as `camvid` and as `folder`."""
    write_camvid_folder(folder, train, val)
    content = {'classes': CAMVID_CLASSES.to_entries(), 'ignore': [11], 'labels': 'ids'}
    (folder / 'classes.yaml').write_text(yaml.safe_dump(content), encoding='utf-8')
    return folder
