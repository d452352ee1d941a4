"""Two real processes, started by torchrun on this machine, train as one process with twice the batches does."""

import subprocess

import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_training import ENVIRONMENT, ROOT, TIMEOUT_S, TORCHRUN, log_rows, tiny_config

from hybrid_seg_ros.training import train_segmenter
from hybrid_seg_ros.training.devices import Processes
from hybrid_seg_ros.training.train_config import TrainConfigError

STEPS = 4
WORKER = ROOT / 'test' / 'training' / 'distributed_worker.py'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=5, val=1)


def small_config(**changes):
    return tiny_config(steps=STEPS, save_every=1, **changes)


def run_two(root, run_dir, failing_step=-1):
    path = run_dir.parent / f'{run_dir.name}.yaml'
    small_config().save(path)
    argv = [*TORCHRUN, '--nproc-per-node', '2', WORKER, path, root, run_dir, failing_step]
    return subprocess.run(list(map(str, argv)), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
                          timeout=TIMEOUT_S)  # fmt: skip


@pytest.fixture(scope='module')
def failed(root, tmp_path_factory):
    """Train with two processes, one of which fails after two steps."""
    run_dir = tmp_path_factory.mktemp('two') / 'run'
    done = run_two(root, run_dir, failing_step=2)
    return run_dir, done, torch.load(run_dir / 'state.pt', weights_only=True)['step']


@pytest.fixture(scope='module')
def two_processes(root, failed):
    """Go on with the run that failed."""
    run_dir = failed[0]
    done = run_two(root, run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir


def test_a_failure_in_one_process_stops_all(failed):
    _, done, saved = failed
    assert done.returncode != 0
    assert 'process 1 stops: FloatingPointError: step 2: the loss is not finite' in done.stderr
    assert 'process 0 stops: ProcessFailedError: another process' in done.stderr
    assert saved == 2


def test_both_end_with_the_same_weights(two_processes):
    first, second = (torch.load(two_processes / f'weights_of_process_{rank}.pt') for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    state = torch.load(two_processes / 'state.pt', weights_only=True)
    assert state['step'] == STEPS and state['batches_per_step'] == 2
    assert all(torch.equal(value, first[name]) for name, value in state['model'].items())


def test_two_processes_equal_one_with_two_batches(root, two_processes, tmp_path):
    """Both see the same four samples a step, augmented alike, with the same dropout: only rounding differs."""
    train_segmenter.train(small_config(accumulate=2), root, tmp_path)
    for row, expected in zip(log_rows(two_processes), log_rows(tmp_path)):
        assert row.keys() == expected.keys()
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in expected.items()}, rel=1e-3, abs=1e-6)  # fmt: skip
    assert len(log_rows(two_processes)) == len(log_rows(tmp_path)) == STEPS
    states = [torch.load(folder / 'state.pt', weights_only=True)['model'] for folder in (two_processes, tmp_path)]
    started = train_segmenter.train(small_config(accumulate=2, seed=1), root, tmp_path / 'other', until=STEPS - 1)
    assert started is None
    other = torch.load(tmp_path / 'other' / 'state.pt', weights_only=True)['model']
    key = 'head.decoder.layers.1.linear1.weight'
    distance, spread = (states[0][key] - states[1][key]).abs().max(), (states[0][key] - other[key]).abs().max()
    assert distance < 1e-3 * spread


def test_one_process_goes_on_where_two_stopped(root, two_processes, tmp_path):
    for name in ('config.yaml', 'state.pt', 'log.csv'):
        (tmp_path / name).write_bytes((two_processes / name).read_bytes())
    with pytest.raises(TrainConfigError, match='expected 2 batches a step as before'):
        train_segmenter.train(small_config(), root, tmp_path)
    spec = train_segmenter.train(small_config(accumulate=2), root, tmp_path)
    assert spec.sha256 == train_segmenter.train(small_config(accumulate=2), root, tmp_path).sha256


def test_batches_of_all_processes_follow_each_other():
    for count, accumulate in ((1, 1), (1, 4), (2, 2), (4, 1)):
        numbers = [Processes(rank, count).batch_numbers(step, accumulate)
                   for step in range(3) for rank in range(count)]  # fmt: skip
        assert sorted(sum(numbers, [])) == list(range(3 * count * accumulate))


def test_one_process_alone_needs_no_exchange():
    alone, module = Processes(), torch.nn.Linear(2, 2)
    assert alone.wrap(module) is module
    assert alone.mean([1.0, 2.0]) == [1.0, 2.0] and alone.any(True) and not alone.any(False)
    with pytest.raises(OSError, match='gone'), alone.together():
        raise OSError('gone')
