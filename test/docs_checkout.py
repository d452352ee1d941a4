"""A folder that looks like a fresh checkout with a reader's files in it, in which the pages' commands run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import yaml
from camvid_folder import write_camvid_folder
from docs_checkpoints import write_checkpoints
from docs_commands import BLOCK_COMMANDS, INLINE_COMMANDS, PAGES, ROOT, Command, begins, blocks
from docs_table import NODE, REPLACED, SMALLER
from picture_files import write_pair
from tiny_model import write_tiny_model, write_tiny_points

from hybrid_seg_ros import cli
from hybrid_seg_ros.data.camvid import CAMVID_CLASSES

TIMEOUT_S = 240
FRAME = 'test/data/camvid_frames/0016E5_07969.jpg'
WRITTEN = ('--output', '--json', '--csv', '--png', '--picture', '--html', '--run-dir')
"""Options whose value is a file or folder that must be there afterwards."""


class Checkout:
    """The folder `path`, and what has run in it: commands may need files that others of the pages write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[str, None] = {}
        write_checkout(path)

    def run(self, command: Command) -> None:
        """Run a command, after those that write what it reads; raises AssertionError if it fails or writes nothing."""
        if command.text in self._done:
            return
        words = shlex.split(shortened(command))
        for need in sorted(self._needs(words)):
            writer = next((c for c in (*BLOCK_COMMANDS, *INLINE_COMMANDS) if need in outputs(c.words)), None)
            if writer is not None and writer.text != command.text:
                self.run(writer)
        for output in outputs(words):
            if (self.path / output).is_file():
                (self.path / output).unlink()  # written by another command
        status, said = self._start(words, command)
        assert status == 0, f'{command.where}: {shlex.join(words)}\nended with status {status}\n{said}'
        for output in outputs(words):
            assert (self.path / output).exists(), f'{command.where}: {shlex.join(words)}\nwrote no {output}'
        self._done[command.text] = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process: the package's sources, a cache of its own, and one thread."""
        return {**os.environ, 'PYTHONPATH': str(ROOT), 'HYBRID_SEG_CACHE_DIR': str(self.path / 'cache'),
                'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo'}  # fmt: skip

    def _needs(self, words: list[str]) -> set[str]:
        """Return the files that a command reads and that are not there, those of its training configuration as well."""
        files = set(words) - set(outputs(words))
        for word in words:
            if word.endswith('.yaml') and (self.path / word).is_file():
                content = yaml.safe_load((self.path / word).read_text(encoding='utf-8'))
                files |= {str(content.get(key)) for key in ('initial_model', 'initial_encoder')}
        folders = {str(parent) for file in files for parent in Path(file).parents}
        return {file for file in files | folders if not (self.path / file).exists()}

    def _start(self, words: list[str], command: Command) -> tuple[int, str]:
        """Run in this process what may, which saves the start of Python and PyTorch."""
        if words[0] == 'hybrid_seg' and command.subcommand not in NODE:
            before = Path.cwd()
            os.chdir(self.path)
            try:
                return cli.main(words[1:]), 'see what it wrote'
            except SystemExit as end:
                return int(end.code), 'see what it wrote; shorthand belongs into SHORTHAND of docs_table.py'
            finally:
                os.chdir(before)
        done = subprocess.run(
            program(words), cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        return done.returncode, done.stdout + done.stderr


def shortened(command: Command) -> str:
    """Return the command as it is run: on small models and data, for a short while."""
    words = shlex.join(command.words)
    for beginning, changes in REPLACED.items():
        if begins(words, beginning):
            for old, new in changes.items():
                words = words.replace(old, new)
    longest = max((beginning for beginning in SMALLER if begins(words, beginning)), key=len, default=None)
    return words if longest is None else f'{words} {SMALLER[longest]}'


def outputs(words: list[str]) -> list[str]:
    """Return the files and folders that a command is told to write."""
    named = [value for option, value in zip(words, words[1:]) if option in WRITTEN]
    if words[0] == 'cp':
        return words[-1:]
    if words[1:2] == ['segment'] and not named:
        return ['out/segment']
    return [*named, words[3]] if words[1:2] == ['write-bag'] else named


def program(words: list[str]) -> list[str]:
    """Return the command with the programs of this environment."""
    python = {
        'hybrid_seg': ['-m', 'hybrid_seg_ros.cli'],
        'torchrun': ['-m', 'torch.distributed.run', '--standalone', '--local-addr', '127.0.0.1'],
    }
    return words if words[0] == 'cp' else [sys.executable, *python.get(words[0], []), *words[1:]]


def write_checkout(folder: Path) -> None:
    """Write models, data and configurations under the names that the pages use."""
    for shared in ('bags', 'config', 'models', 'test/data'):  # no links: commands may write beside what they read
        shutil.copytree(ROOT / shared, folder / shared)
    (folder / 'docs' / 'images').mkdir(parents=True)
    write_tiny_model(folder / 'models')
    write_tiny_points(folder / 'models' / 'tiny.yaml')
    for name in ('CAMVID', 'MY_IMAGES', 'my_images'):
        write_camvid_folder(folder / name, train=2, val=2)
        classes = {'classes': CAMVID_CLASSES.to_entries(), 'ignore': [11], 'labels': 'ids'}
        (folder / name / 'classes.yaml').write_text(yaml.safe_dump(classes), encoding='utf-8')
        labels = folder / name / 'train/labels/0.png'
        every_class = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
        every_class[0, : len(CAMVID_CLASSES)] = np.arange(len(CAMVID_CLASSES))
        assert cv2.imwrite(str(labels), every_class)
    (folder / 'drive.mcap').symlink_to('bags/camvid_val/camvid_val.mcap')
    write_pair(folder / 'IMAGES' / '0.jpg', folder / 'LABELS' / '0.png', np.zeros((72, 96), np.uint8))
    shutil.copy(ROOT / FRAME, folder / 'street.jpg')
    write_benchmark_models(folder / 'narrow')
    write_checkpoints(folder)
    for page in PAGES:
        for language, _, text in blocks(page):
            name = re.match(r'# (\S+\.yaml)\n', text)
            if language == 'yaml' and name:
                (folder / name[1]).write_text(text, encoding='utf-8')


def write_benchmark_models(folder: Path) -> None:
    """Write the models of config/benchmark with a narrow backbone, for small images."""
    folder.mkdir()
    for path in (ROOT / 'config' / 'benchmark').glob('*.yaml'):
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        content['backbone'] = {'embed_dim': 24, 'depth': 12, 'num_heads': 3}
        content['input_size_hw'] = [96, 128]
        content['budget']['merged_windows'] = 5
        (folder / path.name).write_text(yaml.safe_dump(content), encoding='utf-8')
