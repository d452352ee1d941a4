"""The page says what was measured, on what, and what came of it."""

import dataclasses

import pytest
from page_reader import look_at
from test_benchmark_results import DENSE, ROW

from hybrid_seg_ros.evaluation.benchmark.page import build_page, list_versions
from hybrid_seg_ros.evaluation.benchmark.plan import RowKey
from hybrid_seg_ros.evaluation.benchmark.results import Benchmark, Violation

pytest.importorskip('matplotlib', reason='comes with requirements/ros.txt, or from the system')

COMPILED, EXPORTED = (
    dataclasses.replace(DENSE, backend=backend, median_ms=ms, parts_ms=ROW.parts_ms)
    for backend, ms in (('torch-compile', 135.0), ('onnxruntime-plain', 150.0))
)
BENCHMARK = Benchmark('a processor, 2 cores', (DENSE, ROW, COMPILED, EXPORTED))
VIOLATION = Violation(RowKey('tiny', (384, 512), 'cts', 'pytorch', 'float32'),
                      RowKey('tiny', (384, 512), 'dense', 'pytorch', 'float32'), (1.0, 2.0), 1.2, 9, 10)  # fmt: skip


def texts(benchmark=BENCHMARK, violations=(), load=0.0):
    return look_at(build_page(benchmark, violations, load)).texts


def test_all_of_it():
    found = texts()
    assert found['h2'] == ['Against what one would run instead', 'tiny 384x512', 'Does every saved GFLOP save time?',
                           'Peak memory', 'What is counted']  # fmt: skip
    assert found['dd'] == ['a processor, 2 cores', list_versions(), '4 rows in 30 interleaved rounds', '0.0']
    assert 'PyTorch' in list_versions() and 'Python 3' in list_versions()
    cells = found['td']
    assert cells[:5] == ['tiny 384x512, float32', 'torch-compile: 135.0 ms', 'onnxruntime: 122.0 ms',
                         'hybrid@8, onnxruntime: 71.0 ms', '1.90x']  # fmt: skip
    row = cells.index('hybrid@8, onnxruntime float32')
    assert cells[row + 1 : row + 9] == ['5.68', '715 → 429', '71.0', '80.0', '1.72x', '3.60x', '1.90x', '201']
    parts = cells.index('dense, onnxruntime float32', row)
    assert cells[parts : parts + 6] == ['dense, onnxruntime float32', '0.5', '60.0', '10.5', '50.0', '9.1']
    assert len(look_at(build_page(BENCHMARK, (), 0.0)).attributes['img']) == 2


@pytest.mark.parametrize('violations, rounds, expected', [
    ((), 30, 'No variant was found that takes fewer GFLOPs'),
    ((VIOLATION,), 30, 'Fewer GFLOPs but slower: tiny 384x512 cts, pytorch float32 (1.00 GFLOPs) takes 1.20'),
    ((), 4, '4 rounds cannot tell: at least 5 are needed.'),
])  # fmt: skip
def test_whether_fewer_gflops_take_less_time(violations, rounds, expected):
    rows = tuple(dataclasses.replace(row, rounds=rounds) for row in BENCHMARK.rows)
    assert any(text.startswith(expected) for text in texts(Benchmark('cpu', rows), violations)['p'])


def test_what_the_reader_is_warned_of():
    rows = (dataclasses.replace(DENSE, weights='random'), dataclasses.replace(ROW, ratio_to_alternative_paired=3.0))
    found = texts(Benchmark('cpu', rows), load=400.0)['p']
    assert found[0].startswith('The machine is busy (load average 400.0')
    assert found[1].startswith('Random weights: tiny') and found[2].startswith('1 of 2 rows were disturbed')


def test_without_alternatives_and_memory_and_with_a_gpu():
    rows = tuple(dataclasses.replace(row, alternative=None, ratio_to_alternative=None, peak_memory_mb=None,
                                     ratio_to_alternative_paired=None) for row in (DENSE, ROW))  # fmt: skip
    found = texts(Benchmark('cpu', rows))
    assert 'peak MiB' not in found['th'] and 'vs plain' in found['th'], 'a column where nothing was measured'
    assert found['td'][1] == 'not measured' and 'tiny 384x512: not measured.' in found['p']
    found = texts(Benchmark('cpu', (rows[0], dataclasses.replace(rows[1], peak_device_memory_mb=512.0))))
    assert 'tiny 384x512, MiB on the GPU' in found['th'] and '512' in found['td']


def test_only_baselines():
    assert texts(Benchmark('cpu', (COMPILED, EXPORTED)))['h2'][0] == 'Against what one would run instead'
