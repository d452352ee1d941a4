"""Every command of the pages runs here, or in a test that docs_table.py names, or cannot, and why."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from docs_checkout import Checkout, outputs
from docs_commands import BLOCK_COMMANDS, INLINE_COMMANDS, PAGES, ROOT, begins, blocks, parse
from docs_runs import how, identify, runs
from docs_table import ELSEWHERE, NODE, NOT_HERE, PAGES_ELSEWHERE, REPLACED, SHORTHAND, SMALLER, TRAINING

from hybrid_seg_ros import cli
from hybrid_seg_ros.ros.parameters import DECLARATIONS

COMMANDS = [*BLOCK_COMMANDS, *INLINE_COMMANDS]
HYBRID_SEG = [command for command in COMMANDS if command.words[0] == 'hybrid_seg']


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp('checkout') / 'hybrid_seg_ros')


@pytest.fixture(autouse=True)
def one_thread_and_a_cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('HYBRID_SEG_CACHE_DIR', str(tmp_path_factory.getbasetemp() / 'cache'))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('command', runs(without=(*TRAINING, *NODE)), ids=identify)
def test_command(checkout, command):
    checkout.run(command)


@pytest.mark.parametrize('command', BLOCK_COMMANDS, ids=lambda command: command.where)
def test_every_command_of_a_block_is_tested_or_it_is_said_why_not(command):
    assert how(command), f'{command.where}: {command.text}: say in test/docs_table.py how it is tested'


def test_no_entry_of_the_table_is_left_over():
    texts = {' '.join(command.words) for command in COMMANDS}
    entries = [*SMALLER, *REPLACED, *ELSEWHERE, *NOT_HERE, *SHORTHAND]
    assert not [entry for entry in entries if not any(begins(text, entry) for text in texts)]
    assert set(PAGES_ELSEWHERE) <= {command.page for command in BLOCK_COMMANDS}


@pytest.mark.parametrize('entry', sorted({*ELSEWHERE.values(), *PAGES_ELSEWHERE.values()}))
def test_the_tests_that_the_table_names_are_there(entry):
    file, _, name = entry.partition('::')
    text = (ROOT / file).read_text(encoding='utf-8')
    assert not name or f'\ndef {name}(' in text


@pytest.mark.parametrize('command', HYBRID_SEG, ids=lambda command: command.where)
def test_arguments_are_those_of_the_command(command):
    if '--help' not in command.words:
        parse(command, is_complete=command in BLOCK_COMMANDS)


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_every_command_is_on_a_page(name):
    assert any(re.search(rf'\bhybrid_seg {name}\b(?!-)', page.read_text(encoding='utf-8')) for page in PAGES)


def test_parameters_on_the_pages_are_those_of_the_node():
    parameters = {declaration.name for declaration in DECLARATIONS}
    for command in BLOCK_COMMANDS:
        named = re.findall(r'(?:-p|--param) (\w+):=', command.text)
        named += re.findall(r'ros2 param set \S+ (\w+)', command.text)
        assert set(named) <= parameters, command.where


@pytest.mark.parametrize('text', [text for path in PAGES for _, _, text in blocks(path) if text.startswith('/**:')])
def test_parameters_in_yaml_are_those_of_the_node(text):
    (content,) = yaml.safe_load(text).values()
    assert set(content['ros__parameters']) <= {*(declaration.name for declaration in DECLARATIONS), 'qos_overrides'}


@pytest.mark.parametrize('path, line, text', [
    pytest.param(path, line, text, id=f'{path.name}:{line}')
    for path in PAGES for language, line, text in blocks(path) if language == 'python'
])  # fmt: skip
def test_python_on_the_pages_runs(checkout, monkeypatch, path: Path, line: int, text: str):
    import cv2

    for command in runs(without=(*TRAINING, *NODE)):
        if any(output in text for output in outputs(command.words)):
            checkout.run(command)
    monkeypatch.chdir(checkout.path)
    rgb = cv2.cvtColor(cv2.imread('street.jpg'), cv2.COLOR_BGR2RGB)
    exec(compile(text, f'{path.name}:{line}', 'exec'), {'rgb': rgb})


def test_a_converted_model_says_what_the_original_says(checkout, monkeypatch, capsys):
    path = ROOT / 'docs' / 'checkpoints.md'
    (text,) = (text for language, _, text in blocks(path) if language == 'python')
    for command in BLOCK_COMMANDS:
        if any(output in text for output in outputs(command.words)):
            checkout.run(command)
    monkeypatch.chdir(checkout.path)
    exec(compile(text, path.name, 'exec'), {})
    assert float(capsys.readouterr().out.splitlines()[-1].split()[0]) > 99.9


def make(*arguments: str) -> str:
    """Return the last command that make would run; the tests may themselves run under make."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(('MAKE', 'MFLAGS'))}
    done = subprocess.run(['make', '-n', *arguments], cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_make_demo_runs_the_demo():
    """test/ros/trials/test_demo.py runs it."""
    assert make('demo', 'DEMO_ARGS=').split() == ['.venv/bin/hybrid_seg', 'demo']
    (command,) = {c.text for c in COMMANDS if 'DEMO_ARGS' in c.text}
    argument = command.partition("DEMO_ARGS='")[2].rstrip("'")
    assert make('demo', f'DEMO_ARGS={argument}') == f'.venv/bin/hybrid_seg demo {argument}'
    cli.build_parser('demo', cli.COMMANDS['demo'].load()).parse_args(['demo', *argument.split()])


def test_ci_runs_make_test_and_that_runs_pytest():
    assert re.search(r'\bmake .*\btest\b', (ROOT / '.ci' / 'run').read_text())
    assert make('test', 'PYTEST_ARGS=').startswith('.venv/bin/python -m pytest')


@pytest.mark.parametrize('command', [c for c in COMMANDS if c.words[0] == 'make'], ids=lambda command: command.where)
def test_make_has_the_target(command):
    assert re.search(rf'^{command.words[1]}:', (ROOT / 'Makefile').read_text(), re.MULTILINE)
