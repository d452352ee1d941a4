"""Devices that cannot be had are refused; two real processes that torchrun starts train as one with twice the batches.

The precision, the layout of a GPU, and the numbers of batches are looked at here as well.
"""

import re
import socket
import subprocess

import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_model import tiny_spec
from tiny_training import ENVIRONMENT, ROOT, TIMEOUT_S, TORCHRUN, log_rows, run_arguments, tiny_config

from hybrid_seg_ros.model_spec import TokenBudget
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training import devices, train_segmenter
from hybrid_seg_ros.training.devices import Processes, autocast, prepare_model, training_device
from hybrid_seg_ros.training.train_config import TrainConfigError

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    'name, precision, complaint',
    [
        ('cpu', 'float16', 'precision float16 needs --device cuda; legal on the CPU are float32, bfloat16'),
        ('tpu', 'float32', "unknown device 'tpu'; legal are cpu, cuda, cuda:N"),
        ('meta', 'float32', "unknown device 'meta'; legal are cpu, cuda, cuda:N"),
    ],
)
def test_what_cannot_be_had_is_refused(name, precision, complaint):
    with pytest.raises(ValueError, match=complaint):
        training_device(name, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_a_missing_gpu_is_refused():
    with pytest.raises(ValueError, match=r"device 'cuda:1': this PyTorch \(.*\) sees no CUDA device"):
        training_device('cuda:1', 'float16')


def test_torchrun_s_processes_take_a_gpu_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert training_device('cuda', 'float16') == torch.device('cuda', 0)
    assert training_device('cuda:1', 'float16') == torch.device('cuda', 1)
    monkeypatch.setenv('WORLD_SIZE', '3')
    with pytest.raises(ValueError, match='take one GPU each; expected --device cuda'):
        training_device('cuda:1', 'float16')
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert training_device('cuda', 'float16') == torch.device('cuda', 1)
    monkeypatch.setenv('LOCAL_RANK', '2')
    with pytest.raises(ValueError, match='device cuda:2: expected an index below 2'):
        training_device('cuda', 'float16')


@pytest.mark.parametrize('precision, dtype', [('float32', torch.float32), ('bfloat16', torch.bfloat16)])
def test_the_network_computes_in_the_precision(precision, dtype):
    layer = torch.nn.Linear(2, 2)
    with autocast(training_device('cpu', precision), precision):
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize('device, has_bfloat16, expected', [
    ('cpu', True, 'bfloat16'), ('cpu', False, 'float32'), ('cuda', False, 'bfloat16'),
])  # fmt: skip
def test_auto_is_bfloat16_where_it_is_fast(monkeypatch, device, has_bfloat16, expected):
    monkeypatch.setattr(devices, 'processor_has_bfloat16', lambda: has_bfloat16)
    assert devices.training_precision('auto', torch.device(device)) == expected
    assert devices.training_precision('float32', torch.device(device)) == 'float32'


def test_channels_last_as_on_a_gpu_changes_nothing_but_the_layout():
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec()).eval()
    images = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)

    def outputs():
        return model(model.normalize(images), model.spec.variant, TokenBudget(keep=0.5), supervise=True).scores

    expected = outputs()
    model = prepare_model(model, CPU).to(memory_format=torch.channels_last)
    assert model.policy.backbone.conv_stem.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(outputs(), expected, rtol=1e-4, atol=1e-5)
    outputs().sum().backward()


STEPS, FAILING = 4, 2
WORKER = ROOT / 'test' / 'training' / 'distributed_worker.py'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=5, val=1)


def small_config(**changes):
    model = {**tiny_config().model, 'policy': 'half_size'}
    return tiny_config(model=model, steps=STEPS, save_every=1, **changes)


@pytest.fixture(scope='module')
def two_processes(root, tmp_path_factory):
    """Train with two processes, one of which fails after two steps; then go on. Returns the folder and what was said.

    The command is that of docs/training.md, with the worker in front that makes it fail.
    """
    run_dir = tmp_path_factory.mktemp('two') / 'run'
    path = run_dir.parent / 'config.yaml'
    small_config().save(path)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    argv = [*TORCHRUN, '--nproc-per-node', '2', WORKER, FAILING, port, 'train', *run_arguments(path, root, run_dir)]
    argv = [*map(str, argv), '--threads', '1']
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir, done.stderr


def test_a_failure_in_one_process_stops_all(two_processes):
    run_dir, said = two_processes
    assert 'hybrid_seg train: step 2: the loss is not finite' in said
    assert 'hybrid_seg train: another process of the run failed; its own message says why' in said
    assert sorted(re.findall(r'process \d, first attempt: status \d', said)) == [
        f'process {rank}, first attempt: status 1' for rank in (0, 1)]
    assert torch.load(run_dir / 'first_state.pt', weights_only=True)['step'] == FAILING


def test_both_end_with_the_same_weights(two_processes):
    run_dir, said = two_processes
    assert said.count('second attempt: status 0') == 2
    first, second = (torch.load(run_dir / f'weights_of_process_{rank}.pt') for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    state = torch.load(run_dir / 'state.pt', weights_only=True)
    assert state['step'] == STEPS and state['batches_per_step'] == 2
    assert all(torch.equal(value, first[name]) for name, value in state['model'].items())


def test_two_processes_equal_one_with_two_batches(root, two_processes, tmp_path):
    """Both see the same four samples a step, augmented alike, with the same dropout: only rounding differs."""
    run_dir, _ = two_processes
    train_segmenter.train(small_config(accumulate=2), root, tmp_path)
    for row, expected in zip(log_rows(run_dir), log_rows(tmp_path)):
        assert row.keys() == expected.keys()
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in expected.items()}, rel=1e-3, abs=1e-6)  # fmt: skip
    assert len(log_rows(run_dir)) == len(log_rows(tmp_path)) == STEPS
    states = [torch.load(folder / 'state.pt', weights_only=True)['model'] for folder in (run_dir, tmp_path)]
    started = train_segmenter.train(small_config(accumulate=2, seed=1), root, tmp_path / 'other', until=STEPS - 1)
    assert started is None
    other = torch.load(tmp_path / 'other' / 'state.pt', weights_only=True)['model']
    key = 'head.decoder.layers.1.linear1.weight'
    distance, spread = (states[0][key] - states[1][key]).abs().max(), (states[0][key] - other[key]).abs().max()
    assert distance < 1e-3 * spread


def test_one_process_goes_on_where_two_stopped(root, two_processes, tmp_path):
    for name in ('config.yaml', 'log.csv'):
        (tmp_path / name).write_bytes((two_processes[0] / name).read_bytes())
    (tmp_path / 'state.pt').write_bytes((two_processes[0] / 'first_state.pt').read_bytes())
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
