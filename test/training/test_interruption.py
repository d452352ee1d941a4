"""Ctrl-C and SIGTERM finish the step, save and say how to go on; a second one stops at once."""

import os
import signal
import sys
import time

import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_training import (
    COMMAND,
    TIMEOUT_S,
    has_rows,
    log_rows,
    run_arguments,
    same_state,
    start,
    tiny_config,
    wait_until,
)

from hybrid_seg_ros.training import train_segmenter
from hybrid_seg_ros.training.terminal import SIGNALS, Interruption

SLOW_STEP = """
import sys, time
from hybrid_seg_ros import cli
from hybrid_seg_ros.training import train_segmenter

quick = train_segmenter.train_losses

def slow(model, batch, step, *others, **more):
    if step == 2:
        time.sleep(600)
    return quick(model, batch, step, *others, **more)

train_segmenter.train_losses = slow
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=3, val=1)


def config():
    return tiny_config(steps=14, save_every=100)


@pytest.fixture(scope='module')
def uninterrupted(root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp('uninterrupted')
    train_segmenter.train(config(), root, run_dir)
    return run_dir


def test_a_signal_saves_and_says_how_to_go_on(root, uninterrupted, tmp_path):
    """SIGTERM; below, SIGINT is the first of two."""
    config().save(tmp_path / 'config.yaml')
    run_dir = tmp_path / 'run'
    process = start([*COMMAND, 'train', *run_arguments(tmp_path / 'config.yaml', root, run_dir), '--threads', '1'])
    wait_until(has_rows(run_dir, 3), process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, output
    step = torch.load(run_dir / 'state.pt', weights_only=True)['step']
    assert step == len(log_rows(run_dir)) and 3 <= step < 14
    assert f'stopped after step {step} of 14, which is saved in {run_dir}' in output
    assert 'the same command goes on' in output and 'Traceback' not in output
    train_segmenter.train(config(), root, run_dir)
    assert log_rows(run_dir) == log_rows(uninterrupted)
    assert same_state(run_dir / 'state.pt', uninterrupted / 'state.pt')


def test_a_second_signal_stops_at_once(root, tmp_path):
    config().save(tmp_path / 'config.yaml')
    run_dir, output = tmp_path / 'run', tmp_path / 'output'
    argv = ['train', *run_arguments(tmp_path / 'config.yaml', root, run_dir)]
    process = start(['bash', '-c', 'exec "$@" 2> "$0"', output, sys.executable, '-c', SLOW_STEP, *argv])
    wait_until(has_rows(run_dir, 2), process)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: 'once more to stop at once' in output.read_text(), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert 'stopped at once' in output.read_text()
    assert not (run_dir / 'state.pt').exists() and len(log_rows(run_dir)) == 2


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption(notify=False) as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_is_not_worth_finishing_stops_at_the_first_signal():
    with Interruption(notify=False) as interruption:
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            raise AssertionError('not reached: a stop was requested before')


def test_a_signal_that_torchrun_passes_on_is_the_same_request(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: clock[0])
    with Interruption(same_request_s=2.0, notify=False) as interruption:
        for seconds in (0.0, 0.1, 1.9):
            clock[0] = 100.0 + seconds
            os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested
        clock[0] = 102.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
