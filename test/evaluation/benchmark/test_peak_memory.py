"""The peak of a process of its own: real, of that row alone, and missing rather than wrong where it fails."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_lively_model

from hybrid_seg_ros.evaluation.benchmark.peak_memory import MemoryJob, measure_peak_memory, resident_peak_mb
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.evaluation.benchmark.torch_baselines import export_dense
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.model_spec import ModelSpec

ROOT = Path(__file__).parents[3]


@pytest.fixture
def job(tmp_path):
    path = write_lively_model(tmp_path)
    image = tmp_path / 'image.npy'
    np.save(image, street_scene((96, 128)))
    return MemoryJob(str(path), 'pytorch', 'cpu', 'float32', 'hybrid@8', (0.5,), str(image))


def test_a_process_of_its_own(job):
    spec = ModelSpec.load(job.model)
    dataclasses.replace(spec, inference='sliding').save(job.model)  # which the job overrides
    before = resident_peak_mb()
    block = np.ones(600 << 17)  # 600 MiB that this process has and the other one has not
    assert resident_peak_mb() >= block.nbytes / 2**20
    found = measure_peak_memory(dataclasses.replace(job, backend='pytorch-plain', inference='whole'))
    assert 50 < found.peak_memory_mb < 800  # PyTorch's build for CUDA alone takes 150 more than that for CPUs
    assert found.peak_device_memory_mb is None and before > 0


def run_without_pytorch(job):
    code = ('import sys, json\n'
            'from hybrid_seg_ros.evaluation.benchmark.peak_memory import main\n'
            'main(sys.argv[1:])\n'
            'assert "torch" not in sys.modules')
    command = [sys.executable, '-c', code, json.dumps(dataclasses.asdict(job))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_graphs_are_measured_without_pytorch(job, tmp_path):
    """Those of the cache, and the export of an alternative."""
    pytest.importorskip('onnxruntime')
    cache, graph = str(tmp_path / 'cache'), tmp_path / 'dense.onnx'
    load_pipeline(job.model, 'onnxruntime', 'cpu', 'float32', 'cts', cache_dir=cache).warm_up()  # exports, with PyTorch
    export_dense(ModelSpec.load(job.model), graph)
    for changes in ({'backend': 'onnxruntime', 'variant': 'cts', 'cache_dir': cache},
                    {'backend': 'onnxruntime-plain', 'variant': 'dense', 'graph': str(graph)}):
        assert run_without_pytorch(dataclasses.replace(job, **changes))['peak_memory_mb'] > 30


def test_nothing_is_known_of_a_row_that_fails(job, caplog):
    found = measure_peak_memory(dataclasses.replace(job, model='nowhere.yaml'))
    assert (found.peak_memory_mb, found.peak_device_memory_mb) == (None, None)
    assert 'no peak memory of nowhere hybrid@8, pytorch float32' in caplog.text and 'no such file' in caplog.text
