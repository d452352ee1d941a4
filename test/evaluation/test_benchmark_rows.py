"""Medians, ratios and violations from laps that are given: nothing is timed here."""

import dataclasses

import pytest

from hybrid_seg_ros.evaluation.benchmark.plan import RowKey, SizedModel
from hybrid_seg_ros.evaluation.benchmark.results import Lap, RowLaps, chance_of_heads, find_violations, summarize
from hybrid_seg_ros.segmentation import StageTimings

SIZE = (384, 512)


def at(**models):
    return {SizedModel(name, SIZE): SizedModel(other, SIZE) for name, other in models.items()}


def laps(variant, totals, gflops=1.0, model='m', backend='pytorch', dtype='float32', **fields):
    each = tuple(Lap(total, StageTimings(1.0, total - 3.0, 2.0)) for total in totals)
    return RowLaps(RowKey(model, SIZE, variant, backend, dtype), each, gflops, {'total': 4.0}, **fields)


DENSE = laps('dense', [100, 110, 90, 400, 100], 10.0)
CTS = laps('cts', [50, 40, 60, 200, 50], 6.0)


@pytest.mark.parametrize('measured, ratios', [
    ([DENSE, CTS], {'cts': (2.0, 2.0), 'dense': (1.0, 1.0)}),
    ([laps('dense', [10, 10, 30]), laps('cts', [10, 20, 20])], {'cts': (0.5, 1.0), 'dense': (1.0, 1.0)}),
    ([CTS], {'cts': (None, None)}),
    ([laps('dense', [9], backend='onnxruntime'), laps('dense', [9], dtype='bfloat16'), laps('dense', [9], model='n'),
      CTS], {'cts': (None, None)}),
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
    small = dataclasses.replace(DENSE, key=dataclasses.replace(DENSE.key, size_hw=(64, 64)))
    row = summarize([small, CTS], {**at(m='m'), small.key.sized_model: small.key.sized_model})[1]
    assert row.ratio_to_dense is None and row.sized_model == ('m', SIZE)
    assert not find_violations([dataclasses.replace(small, gflops=0.1), CTS])


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
