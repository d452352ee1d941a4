"""The TensorRT backend's own code at work where there is no GPU: everything but TensorRT and the driver is real."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import host_gpu
import pytest

CASES = Path(__file__).with_name('on_host_cuda.py')


@pytest.mark.timeout(600)
def test_on_a_gpu_made_of_the_host(cache):
    """In a process of its own, whose libcuda.so.1 is the one of host_cuda.c."""
    host_gpu.needs_nvrtc()
    assert shutil.which(host_gpu.C_COMPILER), f'the C compiler {host_gpu.C_COMPILER} is needed'
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', '--override-ini=python_files=*.py',
         str(CASES)], cwd=Path(__file__).parents[3], env={**os.environ, 'SHARED_GRAPH_CACHE': str(cache)},
        capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'passed' in done.stdout and 'skipped' not in done.stdout
