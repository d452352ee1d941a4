"""JSON with exactly the promised keys, and tables that people can read."""

import dataclasses
import json

import pytest

from hybrid_seg_ros.evaluation.benchmark.results import COLUMNS, Benchmark, BenchmarkRow

ROW = BenchmarkRow(
    model='tiny', size_hw=(384, 512), variant='hybrid@8', backend='onnxruntime', dtype='float32', device='cpu',
    weights='abc', rounds=30, gflops=5.678, tokens={'total': 1024.0, 'merged': 715.0, 'kept@8': 429.0}, median_ms=71.04,
    p95_ms=80.0, ratio_to_dense=1.72, ratio_to_dense_paired=1.7, ratio_to_plain=3.6, ratio_to_plain_paired=3.6,
    alternative='torch-compile', ratio_to_alternative=1.9, ratio_to_alternative_paired=1.9,
    parts_ms={'preprocess': 0.5, 'network': 60.0, 'postprocess': 10.5}, peak_memory_mb=201.4,
)  # fmt: skip
DENSE = dataclasses.replace(
    ROW, variant='dense', median_ms=122.0, ratio_to_dense=1.0, ratio_to_dense_paired=1.0, ratio_to_plain=None,
    ratio_to_plain_paired=None, tokens={'total': 1024.0, 'merged': 1024.0}, peak_memory_mb=None,
    parts_ms={**ROW.parts_ms, 'network.blocks': 50.0, 'network.head': 9.06},
)  # fmt: skip
BENCHMARK = Benchmark('a processor, 2 cores', (DENSE, ROW))


def test_json(tmp_path):
    BENCHMARK.save_json(tmp_path / 'out.json')
    content = json.loads((tmp_path / 'out.json').read_text())
    assert list(content) == ['device', 'rows'] and content['device'] == 'a processor, 2 cores'
    promised = {'variant', 'backend', 'dtype', 'median_ms', 'p95_ms', 'ratio_to_dense', 'parts_ms', 'peak_memory_mb'}
    assert all(promised <= set(row) for row in content['rows'])
    assert content['rows'][1] == {**dataclasses.asdict(ROW), 'size_hw': [384, 512]}
    assert [path.name for path in tmp_path.iterdir()] == ['out.json']


def test_columns_are_aligned():
    heading, *table = BENCHMARK.text().splitlines()[:4]
    assert 'median of 30 interleaved rounds' in heading and 'a processor, 2 cores' in heading
    assert all(name in table[0] for name in COLUMNS)
    for name, ends in (('p95 ms', ('80.0', '80.0')), ('vs dense', ('1.00x', '1.72x')), ('ms', ('122.0', '71.0'))):
        end = table[0].index(f' {name} ') + 1 + len(name)
        assert tuple(line[:end].split()[-1] for line in table[1:]) == ends, name
    assert '715 → 429' in table[2] and table[2].endswith('201')
    assert 'tiny 384x512 dense, onnxruntime float32: blocks 50.0, head 9.1' in BENCHMARK.text()


def test_markdown():
    lines = BENCHMARK.markdown().splitlines()
    table = [line for line in lines if line.startswith('|')]
    assert len(table) == 4 and len({line.count('|') for line in table}) == 1
    assert '| **71.0** |' in table[3] and '**' not in table[2], 'the fastest is in bold'
    assert '1.72x | 3.60x | 1.90x | 0.5 | 60.0 | 10.5 | 201 |' in table[3]


@pytest.mark.parametrize('changes, expected', [
    ({}, []),
    ({'ratio_to_alternative_paired': 1.5}, ['1 of 2 rows were disturbed']),
    ({'weights': 'random'}, ['Random weights: tiny on onnxruntime.']),
    ({'weights': 'random', 'model': 'other'}, ['Random weights: other.']),
    ({'ratio_to_dense_paired': 1.5}, ['1 of 2 rows were disturbed']),
    ({'ratio_to_plain_paired': 4.0, 'weights': 'random', 'model': 'x'}, ['Random weights: x.', '1 of 2 rows']),
])  # fmt: skip
def test_remarks(changes, expected):
    benchmark = Benchmark('cpu', (DENSE, dataclasses.replace(ROW, **changes)))
    assert len(benchmark.remarks()) == len(expected)
    for remark, start in zip(benchmark.remarks(), expected):
        assert remark.startswith(start)
        assert remark in benchmark.text() and remark in benchmark.markdown()
