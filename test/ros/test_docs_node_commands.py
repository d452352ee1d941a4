"""The pages' commands that start a node or play to one run, with a tiny model, over DDS."""

from __future__ import annotations

import subprocess
import sys

import pytest
from docs_checkout import Checkout, program
from docs_commands import BLOCK_COMMANDS, ROOT
from docs_runs import identify, runs
from docs_table import NODE

TIMEOUT_S = 60.0


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp('checkout') / 'hybrid_seg_ros')


@pytest.fixture
def echo(checkout, command):
    """Let a stand-in for the node answer what is replayed."""
    if command.subcommand != 'replay':
        yield
        return
    script = str(ROOT / 'test' / 'ros' / 'echo_node.py')
    with subprocess.Popen([sys.executable, script], env=checkout.environment) as process:
        yield
        process.kill()


@pytest.mark.parametrize('command', runs(of=NODE), ids=identify)
def test_command(checkout, echo, command):
    checkout.run(command)


def test_a_node_and_a_replay_in_two_terminals(checkout):
    """As docs/node.md shows it; the replay ends after three frames, each one answered."""
    (node,) = (c for c in BLOCK_COMMANDS if 'hybrid_seg_ros.ros.segmentation_node' in c.text)
    (replay,) = (c for c in BLOCK_COMMANDS if c.subcommand == 'replay' and c.page == node.page)
    arguments = [*node.words, '-p', 'model_path:=models/tiny.yaml', '-p', 'num_threads:=1']
    with subprocess.Popen(program(arguments), cwd=checkout.path, env=checkout.environment) as process:
        try:
            command = [*program(replay.words), '--lock-step', '--limit', '3', '--wait', '30']
            done = subprocess.run(
                command, cwd=checkout.path, env=checkout.environment, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        finally:
            process.terminate()
    assert done.returncode == 0, done.stderr
    assert '3 frames' in done.stdout and process.returncode == 0
