"""docs/training.md: its configurations are legal and each of its commands runs, on a model and data of test size."""

import re
import shlex
import subprocess

import pytest
import torch
import yaml
from tiny_model import tiny_spec
from tiny_training import ENVIRONMENT, OWN_DATASETS, ROOT, TIMEOUT_S, TORCHRUN, write_dataset

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.encoder_weights import save_encoder
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.train_config import TrainConfig

PAGE = (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```(\w*)\n(.*?)```', PAGE, re.DOTALL)
CONFIGS = {re.match(r'# (\S+)', text)[1]: text for kind, text in BLOCKS if kind == 'yaml' and text.startswith('# ')}
FETCHING = ('pip', 'unzip', 'hybrid_seg convert')
"""How commands begin that bring the encoder: test/test_page_commands.py and test/export have them."""
COMMANDS = [
    line for kind, text in BLOCKS if not kind for line in text.splitlines() if not line.startswith(FETCHING)
]
DATASET = OWN_DATASETS[-1]
SMALLER = {'crop_hw': [64, 96], 'batch_size': 2, 'steps': 2, 'warmup_steps': 0, 'save_every': 1, 'loss_stride': 2,
           'precision': 'float32', 'dataset': DATASET}  # fmt: skip
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
    recipe = yaml.safe_load((ROOT / 'config' / 'train_folder.yaml').read_text(encoding='utf-8'))
    model = {**recipe['model'], **SMALLER_MODEL}
    model['backbone'] = {**SMALLER_MODEL['backbone'], 'class_token': True, 'final_norm': True}
    (folder / 'config').mkdir()
    (folder / 'config' / 'train_folder.yaml').write_text(yaml.safe_dump({**recipe, **SMALLER, 'model': model}))
    encoder = HybridSegmenter(ModelSpec.from_dict({**model, 'classes': [{'name': 'any'}]})).encoder
    save_encoder(encoder, folder / 'out' / 'dinov2_small.safetensors')
    return folder


def test_the_page_has_what_is_tested_here():
    assert set(CONFIGS) == {'policy.yaml', 'dense.yaml', 'pruning.yaml'}
    assert [line.split()[0] for line in COMMANDS] == ['hybrid_seg'] * 8 + ['torchrun', 'tensorboard']


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
    line = COMMANDS[number].replace(' --device cuda', '').replace('--dataset folder', f'--dataset {DATASET}')
    program, *argv = shlex.split(line)
    if program == 'hybrid_seg':
        assert main(argv) == 0, capsys.readouterr().err
        return
    if program == 'torchrun':
        command = [*TORCHRUN, *argv]
    else:  # look into the files instead of serving them for ever
        command = [TORCHRUN[0], '-m', 'tensorboard.main', *argv, '--inspect']
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert program == 'torchrun' or 'train/loss' in done.stdout


def test_what_the_page_says_of_a_run_folder(folder):
    named = set(re.findall(r'`([\w.]+?)/?`', re.search(r'## What a run folder holds(.*?)\n## ', PAGE, re.DOTALL)[1]))
    files = {path.name for path in (folder / 'out' / 'dense_3').iterdir()}
    assert files <= named
    assert files == {'config.yaml', 'model.yaml', 'model.safetensors', 'best.yaml', 'best.safetensors', 'log.csv',
                     'evaluations.jsonl', 'tensorboard', 'state.pt'}  # fmt: skip
    assert torch.load(folder / 'out' / 'dense_3' / 'state.pt', weights_only=True)['batches_per_step'] == 2
