"""docs/training.md: its configurations are legal and each of its commands runs, on a model and data of test size."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import torch
import yaml
from tiny_model import tiny_spec
from tiny_training import ENVIRONMENT, ROOT, TIMEOUT_S, write_dataset

from hybrid_seg_ros.cli import build_parser, main
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.encoder_weights import save_encoder
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training import train_segmenter
from hybrid_seg_ros.training.train_config import TrainConfig

PAGE = (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```(\w*)\n(.*?)```', PAGE, re.DOTALL)
CONFIGS = {re.match(r'# (\S+)', text)[1]: text for kind, text in BLOCKS if kind == 'yaml' and text.startswith('# ')}
ELSEWHERE = {
    'pip': 'test/test_page_commands.py', 'unzip': 'test/test_page_commands.py', 'hybrid_seg convert': 'test/export',
    'hybrid_seg train --config config/train_folder.yaml': 'test_train_folder.py',
    'hybrid_seg evaluate --model out/my_segmenter': 'test_train_folder.py', 'torchrun': 'test_devices.py',
}  # fmt: skip
"""How commands begin that run in another test."""
COMMANDS = [
    line for kind, text in BLOCKS if not kind for line in text.splitlines() if not line.startswith(tuple(ELSEWHERE))
]
SMALLER = {'crop_hw': [64, 96], 'batch_size': 2, 'steps': 2, 'warmup_steps': 0, 'save_every': 1, 'loss_stride': 2,
           'precision': 'float32', 'dataset': 'folder'}  # fmt: skip
SMALLER_MODEL = {'backbone': {'embed_dim': 24, 'depth': 12, 'num_heads': 3}, 'input_size_hw': [64, 96],
                 'decoder': {'dim': 12, 'layers': 2, 'num_heads': 3}}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Make the folder that the page works in."""
    folder = tmp_path_factory.mktemp('page')
    write_dataset(folder / 'my_images', train=3, val=1)
    for name, text in CONFIGS.items():
        content = yaml.safe_load(text)
        content = {**content, **SMALLER, 'model': {**content['model'], **SMALLER_MODEL}}
        (folder / name).write_text(yaml.safe_dump(content), encoding='utf-8')
    encoder = HybridSegmenter(tiny_spec(input_size_hw=(64, 96))).encoder
    save_encoder(encoder, folder / 'out' / 'encoder_vit_tiny.safetensors')
    return folder


def test_the_page_has_what_is_tested_here():
    assert set(CONFIGS) == {'policy.yaml', 'dense.yaml', 'pruning.yaml'}
    assert [line.split()[0] for line in COMMANDS] == ['hybrid_seg'] * 6 + ['tensorboard']
    (torchrun,) = (line.split() for line in PAGE.splitlines() if line.startswith('torchrun'))
    assert torchrun[1:5] == ['--nproc-per-node', '2', '-m', 'hybrid_seg_ros.cli']
    build_parser('train', train_segmenter).parse_args(torchrun[5:])


@pytest.mark.parametrize('name', CONFIGS)
def test_configurations_are_legal_as_they_stand(tmp_path, name):
    (tmp_path / name).write_text(CONFIGS[name], encoding='utf-8')
    assert TrainConfig.load(tmp_path / name).dataset == 'folder'


def test_other_examples_name_real_keys():
    others = [yaml.safe_load(text) for kind, text in BLOCKS if kind == 'yaml' and not text.startswith('# ')]
    for content in others:
        TrainConfig(model={}, **content)
    for key in re.findall(r'`(\w+): ', PAGE):
        assert key in {*TrainConfig.__dataclass_fields__, *ModelSpec.__dataclass_fields__}, key


@pytest.mark.parametrize('number', range(len(COMMANDS)), ids=[re.sub(r'\W+', '-', line)[:60] for line in COMMANDS])
def test_command(folder, number, capsys, monkeypatch):
    """Commands build on each other: they run in the page's order."""
    monkeypatch.chdir(folder)
    program, *argv = shlex.split(COMMANDS[number])
    if program == 'hybrid_seg':
        assert main(argv) == 0, capsys.readouterr().err
        return
    command = [sys.executable, '-m', 'tensorboard.main', *argv, '--inspect']  # instead of serving files for ever
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0 and 'train/loss' in done.stdout, done.stdout + done.stderr


def test_the_three_stages_build_on_each_other(folder):
    """Each trains what it says; the policy network stays frozen after the first. Runs after the commands."""
    policy, dense, pruned = (load_model(ModelSpec.load(folder / 'out' / name / 'model.yaml')).state_dict()
                             for name in ('policy', 'dense', 'pruned'))  # fmt: skip
    for before, after in ((policy, dense), (dense, pruned)):
        moved = {name.split('.')[0] for name in before if not torch.equal(before[name], after[name])}
        assert moved == {'encoder', 'auxiliary_heads', 'head'}
    reports = [json.loads((folder / 'out' / name / 'evaluations.jsonl').read_text().splitlines()[-1])
               for name in ('policy', 'dense', 'pruned')]  # fmt: skip
    assert set(reports[0]) == {'step', 'accuracy', 'wrongly_merged'}
    assert [report['variant'] for report in reports[1:]] == ['dense', 'hybrid@8']
    assert all(0 <= report['miou'] <= 100 for report in reports[1:])


def test_what_the_page_says_of_a_run_folder(folder):
    named = set(re.findall(r'`([\w.]+?)/?`', re.search(r'## What a run folder holds(.*?)\n## ', PAGE, re.DOTALL)[1]))
    files = {path.name for path in (folder / 'out' / 'dense_2').iterdir()}
    assert files <= named
    assert files == {'config.yaml', 'model.yaml', 'model.safetensors', 'best.yaml', 'best.safetensors', 'log.csv',
                     'evaluations.jsonl', 'tensorboard', 'state.pt'}  # fmt: skip
