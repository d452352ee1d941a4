"""Medians, ratios and violations from laps that are given, as JSON and as tables: nothing is timed here."""

import dataclasses
import json

import pytest

from hybrid_seg_ros.evaluation.benchmark.plan import RowKey, SizedModel
from hybrid_seg_ros.evaluation.benchmark.results import (
    COLUMNS,
    Benchmark,
    BenchmarkRow,
    Lap,
    RowLaps,
    chance_of_heads,
    find_violations,
    summarize,
)
from hybrid_seg_ros.segmentation import StageTimings

SIZE = (384, 512)


def at(**models):
    return {SizedModel(name, SIZE): SizedModel(other, SIZE) for name, other in models.items()}


def laps(variant, totals, gflops=1.0, model='m', backend='pytorch', dtype='float32', **fields):
    each = tuple(Lap(total, StageTimings(1.0, total - 3.0, 2.0)) for total in totals)
    return RowLaps(RowKey(model, SIZE, variant, backend, dtype), each, gflops, {'total': 4.0}, **fields)


DENSE_LAPS = laps('dense', [100, 110, 90, 400, 100], 10.0)
CTS_LAPS = laps('cts', [50, 40, 60, 200, 50], 6.0)


@pytest.mark.parametrize('measured, ratios', [
    ([DENSE_LAPS, CTS_LAPS], {'cts': (2.0, 2.0), 'dense': (1.0, 1.0)}),
    ([laps('dense', [10, 10, 30]), laps('cts', [10, 20, 20])], {'cts': (0.5, 1.0), 'dense': (1.0, 1.0)}),
    ([CTS_LAPS], {'cts': (None, None)}),
    ([laps('dense', [9], backend='onnxruntime'), laps('dense', [9], dtype='bfloat16'), laps('dense', [9], model='n'),
      CTS_LAPS], {'cts': (None, None)}),
], ids=['both', 'disturbed', 'no dense', 'another dense'])  # fmt: skip
def test_ratio_to_dense(measured, ratios):
    rows = {row.variant: row for row in summarize(measured, at(m='m', n='n'))}
    for variant, (of_medians, paired) in ratios.items():
        assert rows[variant].ratio_to_dense == pytest.approx(of_medians)
        assert rows[variant].ratio_to_dense_paired == pytest.approx(paired)


def test_ratio_to_plain():
    """By the plain dense row of the model that stands for the form, in the same dtype, for every backend."""
    plain = laps('dense', [300, 300, 300], model='paper', backend='pytorch-plain')
    measured = [
        plain, laps('cts', [200, 150, 150], model='paper', backend='pytorch-plain'), laps('dense', [100, 100, 90]),
        laps('hybrid@8', [60, 50, 60], backend='onnxruntime'), laps('dense', [30] * 3, dtype='bfloat16'),
        laps('dense', [10] * 3, model='wide'),
    ]  # fmt: skip
    rows = summarize(measured, at(m='paper', paper='paper', wide='wide'))
    assert [row.ratio_to_plain for row in rows] == [1.0, 2.0, 3.0, 5.0, None, None]


def test_ratio_to_the_faster_alternative():
    """Of the same model and dtype; by the medians, though the other one was faster in one round."""
    compiled = laps('dense', [80, 80, 20], backend='torch-compile')
    exported = laps('dense', [60, 60, 60], backend='onnxruntime-plain')
    others = [laps('hybrid@8', [30, 30, 20]), laps('dense', [30] * 3, dtype='bfloat16'), laps('dense', [9], model='n')]
    rows = summarize([compiled, exported, *others], at(m='m', n='n'))
    assert [row.alternative for row in rows] == ['onnxruntime-plain'] * 3 + [None] * 2
    assert [row.ratio_to_alternative for row in rows] == [0.75, 1.0, 2.0, None, None]
    assert [row.ratio_to_alternative_paired for row in rows] == [0.75, 1.0, 2.0, None, None]
    alone = summarize([compiled, others[0]], at(m='m'))
    assert (alone[1].alternative, alone[1].ratio_to_alternative) == ('torch-compile', 80 / 30)


def test_sizes_do_not_mix():
    small = dataclasses.replace(DENSE_LAPS, key=dataclasses.replace(DENSE_LAPS.key, size_hw=(64, 64)))
    row = summarize([small, CTS_LAPS], {**at(m='m'), small.key.sized_model: small.key.sized_model})[1]
    assert row.ratio_to_dense is None and row.sized_model == ('m', SIZE)
    assert not find_violations([dataclasses.replace(small, gflops=0.1), CTS_LAPS])


def test_a_row_says_everything():
    measured = laps('cts', range(10, 31), network_parts_ms={'blocks': 7.0}, peak_memory_mb=90.0, weights='abc')
    row = summarize([measured], at(m='m'))[0]
    assert (row.median_ms, row.rounds, row.p95_ms, row.weights) == (20, 21, pytest.approx(29.0), 'abc')
    assert row.parts_ms == {'preprocess': 1.0, 'network': 17.0, 'postprocess': 2.0, 'network.blocks': 7.0}
    assert (row.peak_memory_mb, row.peak_device_memory_mb) == (90.0, None)


SLOWER, FASTER, EVEN = [12.0] * 10, [8.0] * 10, [10.0] * 10


@pytest.mark.parametrize('measured, expected', [
    ([laps('dense', EVEN, 10.0), laps('cts', FASTER, 6.0)], []),
    ([laps('dense', EVEN, 10.0), laps('cts', EVEN, 6.0)], []),
    ([laps('dense', EVEN, 10.0), laps('cts', SLOWER, 6.0)], [('cts', 'dense', 1.2, 10)]),
    ([laps('dense', EVEN, 6.0), laps('cts', SLOWER, 6.0)], []),
    ([laps('dense', EVEN, 6.0), laps('cts', SLOWER, 10.0)], []),
    ([laps('dense', EVEN, 10.0), laps('cts', [12.0] * 9 + [8.0], 6.0)], [('cts', 'dense', 1.2, 9)]),
    ([laps('dense', EVEN, 10.0), laps('cts', [12.0] * 8 + [8.0] * 2, 6.0)], []),
    ([laps('dense', EVEN, 10.0), laps('cts', [10.05] * 10, 6.0)], []),
    ([laps('dense', EVEN[:4], 10.0), laps('cts', SLOWER[:4], 6.0)], []),
    ([laps('dense', [10.0, 30.0] * 5, 10.0), laps('cts', [12.0, 36.0] * 5, 6.0)], [('cts', 'dense', 1.2, 10)]),
    ([laps('dense', EVEN, 10.0), laps('cts', SLOWER, 6.0, backend='onnxruntime'), laps('cts', SLOWER, 6.0, model='n'),
      laps('cts', SLOWER, 6.0, dtype='bfloat16')], []),
    ([laps('dense', EVEN, 10.0), laps('cts', FASTER, 6.0), laps('hybrid@8', [9.0] * 10, 5.0)],
     [('hybrid@8', 'cts', 1.125, 10)]),
], ids=['faster', 'even', 'slower', 'same GFLOPs', 'more GFLOPs', 'nine of ten', 'eight of ten', 'by a hair',
        'too few rounds', 'a machine that changes', 'not comparable', 'between two variants'])  # fmt: skip
def test_violations(measured, expected):
    found = find_violations(measured)
    assert [(v.cheaper.variant, v.dearer.variant, pytest.approx(v.factor), v.slower_rounds) for v in found] == expected


def test_a_violation_says_what_is_slower_than_what():
    found = find_violations([laps('dense', EVEN, 10.0), laps('cts', SLOWER, 6.0)])
    assert str(found[0]) == ('m 384x512 cts, pytorch float32 (6.00 GFLOPs) takes 1.20 times as long as dense (10.00 '
                             'GFLOPs): slower in 10 of 10 rounds')


@pytest.mark.parametrize('heads, throws, chance', [(0, 5, 1.0), (5, 5, 1 / 32), (2, 3, 0.5), (1, 1, 0.5)])
def test_chance_of_heads(heads, throws, chance):
    assert chance_of_heads(heads, throws) == pytest.approx(chance)


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
