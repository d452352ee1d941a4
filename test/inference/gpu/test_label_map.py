"""The kernel that makes a label map on a GPU: the same source, compiled for the host, against NumPy; and for GPUs."""

import ctypes
import shutil

import host_gpu
import numpy as np
import pytest
from numpy.ctypeslib import ndpointer

from hybrid_seg_ros.inference.backends.tensorrt.cuda import Gpu
from hybrid_seg_ros.inference.backends.tensorrt.label_map import (
    KERNEL_FILE,
    KernelError,
    check_sampling,
    compile_kernel,
)

FLOATS, INTS, BYTES = (ndpointer(dtype, flags='C') for dtype in (np.float32, np.int32, np.uint8))


@pytest.fixture(scope='module')
def label_map(tmp_path_factory):
    assert shutil.which(host_gpu.C_COMPILER), f'the C compiler {host_gpu.C_COMPILER} is needed'
    function = host_gpu.compile_c(KERNEL_FILE, tmp_path_factory.mktemp('kernel') / 'label_map.so').label_map
    function.argtypes = [FLOATS, *[ctypes.c_int] * 3, INTS, FLOATS, ctypes.c_int, INTS, FLOATS, ctypes.c_int,
                         BYTES, FLOATS]  # fmt: skip
    function.restype = None

    def run(scores, rows, columns):
        size_hw = (len(rows[0]), len(columns[0]))
        labels, confidence = np.empty(size_hw, np.uint8), np.empty(size_hw, np.float32)
        function(scores, *scores.shape, *rows, size_hw[0], *columns, size_hw[1], labels, confidence)
        return labels, confidence

    return run


def sampling(output, cells, rng):
    """Pixels anywhere between the centres of cells, and beyond the last, whose weight is nought."""
    low = np.sort(rng.integers(0, cells, output)).astype(np.int32)
    weight = rng.random(output, np.float32)
    weight[low == cells - 1] = 0
    return low, weight


def all_scores(scores, rows, columns):
    """Interpolate every class everywhere, first between rows, then between columns, in float32."""
    (low, weight), (left, weight_right) = rows, columns
    high, right = np.minimum(low + 1, scores.shape[1] - 1), np.minimum(left + 1, scores.shape[2] - 1)
    lines = scores[:, low] + (scores[:, high] - scores[:, low]) * weight[:, None]
    return lines[:, :, left] + (lines[:, :, right] - lines[:, :, left]) * weight_right


@pytest.mark.parametrize(('classes', 'grid_hw', 'output_hw'), [
    (11, (24, 32), (97, 130)), (150, (32, 32), (64, 64)), (256, (3, 5), (40, 7)), (1, (2, 2), (5, 5)),
    (4, (1, 1), (3, 9)), (7, (1, 6), (2, 33)), (7, (6, 1), (33, 2)),
])  # fmt: skip
def test_bit_for_bit_what_numpy_gives(label_map, classes, grid_hw, output_hw):
    rng = np.random.default_rng(classes)
    scores = rng.random((classes, *grid_hw), np.float32) * 1.4 - 0.2  # some clipped
    rows, columns = (sampling(output, cells, rng) for output, cells in zip(output_hw, grid_hw))
    labels, confidence = label_map(scores, rows, columns)
    expected = all_scores(scores, rows, columns)
    assert np.array_equal(labels, expected.argmax(0))
    assert np.array_equal(confidence, np.clip(expected.max(0), 0, 1))


def test_the_first_of_equals_wins(label_map):
    scores = np.full((5, 3, 3), 0.25, np.float32)
    scores[0] = 0.1
    rows = columns = (np.array([0, 1, 2], np.int32), np.array([0.5, 0.5, 0], np.float32))
    labels, confidence = label_map(scores, rows, columns)
    assert (labels == 1).all() and (confidence == np.float32(0.25)).all()


def test_scores_below_nought(label_map):
    scores = np.linspace(-3, -1, 12, dtype=np.float32).reshape(3, 2, 2)
    rows = columns = (np.array([0], np.int32), np.array([0.5], np.float32))
    labels, confidence = label_map(scores, rows, columns)
    assert labels.tolist() == [[2]] and confidence.tolist() == [[0]]


@pytest.mark.parametrize('capability', [75, 80, 86, 87, 89, 90, 120])
def test_it_compiles_for_gpus(capability):
    host_gpu.needs_nvrtc()
    machine_code = compile_kernel(KERNEL_FILE, capability)
    assert machine_code.startswith(b'\x7fELF') and b'label_map' in machine_code


def test_a_gpu_newer_than_the_compiler_gets_ptx():
    host_gpu.needs_nvrtc()
    ptx = compile_kernel(KERNEL_FILE, 999)
    assert b'.entry label_map' in ptx and b'fma' not in ptx, 'rounds like NumPy'


def test_what_does_not_compile(tmp_path):
    host_gpu.needs_nvrtc()
    source = tmp_path / 'wrong.cu'
    source.write_text('__global__ void f() { nonsense; }')
    with pytest.raises(KernelError, match='wrong.cu: nvrtcCompileProgram: .*identifier "nonsense" is undefined'):
        compile_kernel(source, 89)
    with pytest.raises(KernelError, match='this NVRTC compiles for .*, not for 10'):
        compile_kernel(KERNEL_FILE, 10)


@pytest.mark.parametrize(('low', 'weight', 'complaint'), [
    ([0, 1, 2], [0, 0, 0], r'rows: expected cells in 0 \.\. 1, got 0 \.\. 2'),
    ([-1, 0, 1], [0, 0, 0], r'got -1 \.\. 1'),
    ([0, 1], [0, 0], r'rows: expected low and weight of shape \(3,\), got \(2,\) and \(2,\)'),
])  # fmt: skip
def test_cells_that_are_not_there_are_never_read(low, weight, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_sampling('rows', (np.array(low, np.int32), np.array(weight, np.float32)), 3, 2)


def test_no_gpu_is_an_error():
    pytest.importorskip('cuda.bindings', reason='cuda-bindings is not installed')
    try:
        gpu = Gpu(99)
    except ValueError as error:
        assert 'no NVIDIA GPU' in str(error) or 'expected an index below' in str(error)
    else:
        gpu.close()
        pytest.fail('expected that no machine has 100 GPUs')
