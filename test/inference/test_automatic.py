"""`auto`: what is taken on which machine, what narrows the choice, and what is said of it."""

import logging
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny_model

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.inference.backends import AUTO, BACKENDS, DEVICES, automatic
from hybrid_seg_ros.inference.backends.automatic import FASTEST_FIRST, choose_placement
from hybrid_seg_ros.inference.backends.tensorrt.cuda import count_gpus

JETSON = {'tensorrt cuda', 'pytorch cuda', 'onnxruntime cpu', 'pytorch cpu'}
CUDA_PC = {'pytorch cuda', 'onnxruntime cuda', 'onnxruntime tensorrt', 'onnxruntime cpu', 'pytorch cpu', 'openvino cpu'}
AMX_PC = {'openvino cpu', 'openvino cpu bfloat16', 'onnxruntime cpu', 'pytorch cpu'}
OLD_PC = {'openvino cpu', 'onnxruntime cpu', 'pytorch cpu'}


def pretend(monkeypatch, machine):
    """Let a machine have what it says, as `backend device`; OpenVINO's bfloat16 is apart."""

    def check(placement):
        name = f'{placement.backend} {placement.device}'
        if placement.backend == 'openvino' and placement.precision == 'bfloat16':
            name += ' bfloat16'
        if name not in machine:
            raise ModuleNotFoundError(f'{placement.backend} not installed')

    monkeypatch.setattr(automatic, '_check_here', check)


@pytest.mark.parametrize(('machine', 'asked', 'taken'), [
    (JETSON, (AUTO, AUTO, AUTO), ('tensorrt', 'cuda', 'float16')),
    (JETSON, (AUTO, 'cuda:1', 'float32'), ('tensorrt', 'cuda:1', 'float32')),
    (JETSON, (AUTO, 'cpu', AUTO), ('onnxruntime', 'cpu', 'float32')),
    (JETSON, (AUTO, AUTO, 'bfloat16'), ('pytorch', 'cuda', 'bfloat16')),
    (CUDA_PC, (AUTO, AUTO, AUTO), ('pytorch', 'cuda', 'float16')),
    (CUDA_PC - {'pytorch cuda'}, (AUTO, AUTO, AUTO), ('onnxruntime', 'cuda', 'float16')),
    (CUDA_PC, ('onnxruntime', 'tensorrt:0', AUTO), ('onnxruntime', 'tensorrt:0', 'float16')),
    (CUDA_PC, ('openvino', AUTO, AUTO), ('openvino', 'cpu', 'float32')),
    (AMX_PC, (AUTO, AUTO, AUTO), ('openvino', 'cpu', 'bfloat16')),
    (AMX_PC, (AUTO, AUTO, 'float32'), ('onnxruntime', 'cpu', 'float32')),
    (AMX_PC, (AUTO, 'cpu', 'float16'), ('onnxruntime', 'cpu', 'float16')),
    (AMX_PC, ('pytorch', AUTO, AUTO), ('pytorch', 'cpu', 'float32')),
    (AMX_PC - {'onnxruntime cpu'}, (AUTO, AUTO, 'float32'), ('openvino', 'cpu', 'float32')),
    (OLD_PC, (AUTO, AUTO, AUTO), ('onnxruntime', 'cpu', 'float32')),
    (OLD_PC, (AUTO, AUTO, 'bfloat16'), ('pytorch', 'cpu', 'bfloat16')),
    ({'pytorch cpu'}, (AUTO, AUTO, AUTO), ('pytorch', 'cpu', 'float32')),
    (set(), ('openvino', 'cpu', 'bfloat16'), ('openvino', 'cpu', 'bfloat16')),  # not asked for, not changed
])  # fmt: skip
def test_what_is_taken(monkeypatch, machine, asked, taken):
    pretend(monkeypatch, machine)
    placement = choose_placement(*asked)
    assert (placement.backend, placement.device, placement.precision) == taken


@pytest.mark.parametrize(('asked', 'name', 'precision', 'taken'), [
    ((AUTO, AUTO, AUTO), 'm.onnx', 'float32', 'tensorrt cuda float32'),
    ((AUTO, AUTO, AUTO), 'm.onnx', 'float16', 'tensorrt cuda float16'),
    ((AUTO, AUTO, AUTO), 'm.engine', 'float16', 'tensorrt cuda float16'),
    ((AUTO, 'cpu', AUTO), 'm.onnx', 'float32', 'openvino cpu bfloat16'),
    ((AUTO, 'cpu', AUTO), 'm.onnx', 'float16', 'onnxruntime cpu float16'),
])  # fmt: skip
def test_a_graph_narrows_the_choice(monkeypatch, asked, name, precision, taken):
    pretend(monkeypatch, JETSON | AMX_PC)
    placement = choose_placement(*asked, Path(name), precision)
    assert (placement.backend, placement.device, placement.precision) == tuple(taken.split())


@pytest.mark.parametrize(('asked', 'graph', 'complaint'), [
    (('caffe', AUTO, AUTO), None, 'unknown backend .caffe.; legal are auto, pytorch, onnxruntime, openvino, tensorrt'),
    ((AUTO, 'tpu', AUTO), None, 'unknown device .tpu.; legal are cpu, cuda, cuda:N'),
    ((AUTO, AUTO, 'int8'), None, 'unknown precision .int8.; legal are auto, float32, bfloat16, float16'),
    (('openvino', AUTO, 'float16'), None, 'legal for openvino are auto, float32, bfloat16'),
    (('tensorrt', 'cpu', AUTO), None, 'backend tensorrt needs an NVIDIA GPU: expected device cuda, cuda:N, got .cpu.'),
    (('openvino', 'cuda', AUTO), None, 'backend openvino runs on cpu: expected device cpu, got .cuda.'),
    ((AUTO, 'tensorrt', 'bfloat16'), None, 'device tensorrt, precision bfloat16: nothing runs that'),
    ((AUTO, 'cpu', AUTO), 'm.engine', 'graph m.engine: nothing runs that'),
])  # fmt: skip
def test_what_nothing_runs(asked, graph, complaint):
    with pytest.raises(ValueError, match=complaint):
        choose_placement(*asked, graph and Path(graph), graph and 'float16')


def test_a_precision_that_the_processor_lacks_is_named(monkeypatch, caplog):
    monkeypatch.setattr(automatic, 'processor_has_bfloat16', lambda: False)
    with caplog.at_level(logging.INFO):
        choose_placement('openvino', AUTO, AUTO)
    assert caplog.messages == [
        'openvino in float32 on cpu is taken, the fastest here; not openvino in bfloat16 on cpu: this processor has no '
        'instructions for bfloat16 (AVX-512 BF16, AMX)']


def test_what_is_missing_is_said(monkeypatch):
    pretend(monkeypatch, set())
    with pytest.raises(ModuleNotFoundError, match='cannot be had here: .*openvino on cpu: openvino not installed; '
                       'onnxruntime on cpu: onnxruntime not installed'):  # fmt: skip
        choose_placement(AUTO, 'cpu', AUTO)


@pytest.mark.skipif(count_gpus() > 0, reason='a GPU is here')
@pytest.mark.parametrize(('backend', 'device'), [('tensorrt', AUTO), (AUTO, 'cuda'), ('pytorch', 'cuda:0')])
def test_without_a_gpu_that_is_what_is_said(backend, device):
    with pytest.raises(ValueError, match='no NVIDIA GPU, or no driver for one, is here'):
        choose_placement(backend, device, AUTO)


def test_this_machine_runs_what_is_taken_and_the_log_says_so_in_one_line(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        pipeline = load_pipeline(write_tiny_model(tmp_path, policy='patch_mlp'), cache_dir=tmp_path / 'cache')
    taken = [record.getMessage() for record in caplog.records if 'is taken' in record.getMessage()]
    assert len(taken) == 1 and f'{pipeline.backend_name} in {pipeline.precision} on ' in taken[0]
    assert pipeline(np.zeros((50, 60, 3), np.uint8)).labels.shape == (50, 60)
    if not count_gpus():
        flags = set(Path('/proc/cpuinfo').read_text().split())
        expected = ('openvino', 'bfloat16') if {'avx512_bf16', 'amx_bf16'} & flags else ('onnxruntime', 'float32')
        assert (pipeline.backend_name, pipeline.precision, pipeline.device_name) == (*expected, 'cpu')
        assert 'no NVIDIA GPU' in taken[0]


def test_everything_that_runs_is_among_the_candidates():
    candidates = {(each.backend, each.device, each.precision) for each in FASTEST_FIRST}
    legal = {(backend, device, precision) for backend in BACKENDS for device in DEVICES[backend]
             for precision in BACKENDS[backend]}  # fmt: skip
    assert candidates == legal - {('pytorch', 'cpu', 'float16')}, 'which only a GPU computes'
