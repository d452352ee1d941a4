"""A run that is killed, in a step or in the middle of saving, goes on as if nothing had happened."""

import signal
import subprocess
import sys

import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_training import (
    COMMAND,
    ENVIRONMENT,
    ROOT,
    TIMEOUT_S,
    has_rows,
    log_rows,
    run_arguments,
    same_state,
    start,
    tiny_config,
    wait_until,
)

from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.training import train_segmenter
from hybrid_seg_ros.training.train_config import TrainConfigError

KILLED_WHILE_SAVING = """
import io, os, signal, sys, torch
from hybrid_seg_ros import cli
from hybrid_seg_ros.training import run_folder

whole, calls = torch.save, []

def save_half(content, stream):
    calls.append(content['step'])
    if len(calls) < 3:
        return whole(content, stream)
    buffer = io.BytesIO()
    whole(content, buffer)
    stream.write(buffer.getvalue()[: buffer.tell() // 2])
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

run_folder.torch.save = save_half
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=3, val=1)


def config():
    return tiny_config(steps=16, evaluate_every=6, save_every=4)


@pytest.fixture(scope='module')
def uninterrupted(root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp('uninterrupted')
    train_segmenter.train(config(), root, run_dir)
    return run_dir


@pytest.fixture
def files(tmp_path):
    config().save(tmp_path / 'config.yaml')
    return tmp_path / 'config.yaml', tmp_path / 'run'


def assert_same_run(run_dir, expected):
    assert log_rows(run_dir) == log_rows(expected)
    assert same_state(run_dir / 'state.pt', expected / 'state.pt')
    assert (run_dir / 'evaluations.jsonl').read_text() == (expected / 'evaluations.jsonl').read_text()
    for name in ('model.yaml', 'best.yaml'):
        weights, same = (load_model(ModelSpec.load(folder / name)).state_dict() for folder in (run_dir, expected))
        assert all(torch.equal(value, same[key]) for key, value in weights.items()), name


def test_a_killed_run_has_the_same_loss_curve(root, uninterrupted, files):
    path, run_dir = files
    argv = [*COMMAND, 'train', *run_arguments(path, root, run_dir), '--threads', '1']
    process = start(argv)
    wait_until(has_rows(run_dir, 4), process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == -signal.SIGKILL
    assert 4 <= len(log_rows(run_dir)) < 16
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert_same_run(run_dir, uninterrupted)


def test_a_kill_in_the_middle_of_saving_leaves_the_state_before(root, uninterrupted, files):
    path, run_dir = files
    argv = ['train', *run_arguments(path, root, run_dir), '--threads', '1']
    done = subprocess.run([sys.executable, '-c', KILLED_WHILE_SAVING, *argv], cwd=ROOT, env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=TIMEOUT_S)  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (run_dir / 'state.pt.partial').stat().st_size > 0
    assert torch.load(run_dir / 'state.pt', weights_only=True)['step'] == 6  # the third was after step 8
    train_segmenter.train(config(), root, run_dir)
    assert_same_run(run_dir, uninterrupted)


def test_a_damaged_state_is_named(root, tmp_path):
    train_segmenter.train(config(), root, tmp_path, until=1)
    state = tmp_path / 'state.pt'
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(TrainConfigError, match=r'state\.pt: damaged'):
        train_segmenter.train(config(), root, tmp_path)
