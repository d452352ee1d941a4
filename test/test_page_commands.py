"""The commands of README.md, docs/usage.md and docs/checkpoints.md run, in their order, on small models and data.

Each other command runs in a test of its own; test_pages.py holds the arguments of all against their parsers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from camvid_folder import write_camvid_folder
from page_checkpoints import write_checkpoints
from pages import COMMANDS, ROOT, Command, blocks
from tiny_model import tiny_spec, write_tiny_model

from hybrid_seg_ros import cli
from hybrid_seg_ros.data.camvid import CAMVID_CLASSES
from hybrid_seg_ros.network.checkpoint import save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter

TIMEOUT_S = 60.0
STEP = ['--set', 'steps=1', '--set', 'batch_size=1', '--set', 'precision=float32', '--set', 'warmup_steps=0',
        '--set', 'crop_hw=[96,128]', '--set', 'model.backbone={embed_dim: 24, depth: 12, num_heads: 3}']  # fmt: skip
SMALLER = {
    'benchmark': ['--rounds', '1', '--settle', '0', '--no-memory', '--no-parts', '--variants', 'dense'],
    'check-parity': ['--variants', 'hybrid@8'],
    'train': STEP,
}
"""What is added at the end of a command, where it wins over what stands before it."""

WRITTEN = ('--output', '--json', '--csv', '--png', '--picture', '--html', '--run-dir')
"""Options whose value is a file or folder that must be there afterwards."""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Change to a folder that looks like a checkout with a reader's files in it; the model is a tiny one."""
    for shared in ('bags', 'config', 'test/data/camvid_frames'):
        shutil.copytree(ROOT / shared, tmp_path / shared)
    torch.manual_seed(0)
    save_model(HybridSegmenter(tiny_spec()), tmp_path / 'models/segvit_small_camvid.yaml', dtype=torch.float32)
    for name in ('CAMVID', 'MY_IMAGES'):
        write_camvid_folder(tmp_path / name, train=2, val=1)
        every_class = np.arange(72 * 96, dtype=np.uint8).reshape(72, 96) % 11
        assert cv2.imwrite(str(tmp_path / name / 'train/labels/0.png'), every_class)
        classes = {'classes': CAMVID_CLASSES.to_entries(), 'ignore': [11], 'labels': 'ids'}
        (tmp_path / name / 'classes.yaml').write_text(yaml.safe_dump(classes), encoding='utf-8')
    shutil.copy(next((ROOT / 'test/data/camvid_frames').glob('*.jpg')), tmp_path / 'street.jpg')
    recipe = {'model': {**tiny_spec().to_dict(), 'classes': 'dataset'}, 'dataset': 'folder'}
    (tmp_path / 'MY_CONFIG.yaml').write_text(yaml.safe_dump(recipe), encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HYBRID_SEG_CACHE_DIR', str(tmp_path / 'cache'))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)


def run_page(page: str, without: tuple[str, ...] = ()) -> None:
    """Run the `hybrid_seg` commands in a page's code blocks, but for these subcommands."""
    commands = [c for c in COMMANDS if c.page == page and c.is_whole and c.words[0] == 'hybrid_seg']
    for command in commands:
        if command.words[1] not in without:
            words = smaller(command)
            assert cli.main(words[1:]) == 0, command
            for option, value in zip(words, words[1:]):
                assert option not in WRITTEN or Path(value).exists(), f'{command}: wrote no {value}'


def smaller(command: Command) -> list[str]:
    """Return the words of a command as it is run: on narrow models, for a short while."""
    words = command.words
    if words[1] == 'convert' and 'vit_tiny' not in words:
        index = words.index('--backbone')
        words[index : index + 2] = ['--spec', f'narrow/{words[index + 1]}.yaml']
    return [*words, *SMALLER.get(words[1], [])]


def python_of(page: str) -> str:
    (text,) = (text for language, text in blocks(ROOT / page) if language == 'python')
    return text


def test_readme_and_usage(checkout):
    run_page('README.md', without=('demo',))
    run_page('docs/usage.md', without=('replay',))  # below
    rgb = cv2.cvtColor(cv2.imread('street.jpg'), cv2.COLOR_BGR2RGB)
    exec(python_of('docs/usage.md'), {'rgb': rgb})


def test_checkpoints(checkout, capsys):
    """`check-parity` is left out: random weights decide by rounding errors."""
    write_checkpoints(checkout)
    for language, text in blocks(ROOT / 'docs/checkpoints.md'):
        if language == 'yaml':
            Path(re.match(r'# (\S+\.yaml)\n', text)[1]).write_text(text, encoding='utf-8')
    run_page('docs/checkpoints.md', without=('check-parity',))
    capsys.readouterr()
    exec(python_of('docs/checkpoints.md'), {})
    assert float(capsys.readouterr().out.split()[0]) > 99.9, 'a converted model says what the original says'
    (pickles,) = (c for c in COMMANDS if c.page == 'docs/checkpoints.md' and c.words[:2] == ['python', '-c'])
    exec(pickles.words[2], {})
    assert Path('weights.pth').exists()


def test_a_node_and_a_replay_in_two_terminals(tmp_path):
    """As docs/node.md shows it; the replay ends after three frames, each one answered."""
    model = write_tiny_model(tmp_path)
    (node,) = (c for c in COMMANDS if 'hybrid_seg_ros.ros.segmentation_node' in c.text)
    (replay,) = (c for c in COMMANDS if c.is_whole and c.words[:2] == ['hybrid_seg', 'replay'] and c.page == node.page)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    node_words = [sys.executable, *node.words[1:], '-p', f'model_path:={model}', '-p', 'num_threads:=1']
    replay_words = [sys.executable, '-m', 'hybrid_seg_ros.cli', *replay.words[1:], '--lock-step', '--limit', '3']
    with subprocess.Popen(node_words, cwd=ROOT, env=environment) as process:
        try:
            done = subprocess.run([*replay_words, '--wait', '30'], cwd=ROOT, env=environment, capture_output=True,
                                  text=True, timeout=TIMEOUT_S)  # fmt: skip
        finally:
            process.terminate()
    assert done.returncode == 0, done.stderr
    assert '3 frames' in done.stdout and process.returncode == 0
