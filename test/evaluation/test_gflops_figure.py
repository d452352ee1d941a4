"""Milliseconds over GFLOPs: a line per backend, whose points are the rows."""

import dataclasses

import pytest
from test_benchmark_report import DENSE, ROW

from hybrid_seg_ros.evaluation.benchmark.figures import BACKEND_COLORS, MARKERS, gflops_figure
from hybrid_seg_ros.evaluation.benchmark.plan import MEASURED

pytest.importorskip('matplotlib', reason='comes with requirements/ros.txt, or from the system')


def test_a_line_per_backend_and_dtype():
    dense = dataclasses.replace(DENSE, gflops=9.0)
    rows = [dense, ROW, dataclasses.replace(dense, backend='torch-compile', median_ms=150.0),
            dataclasses.replace(ROW, dtype='float16', median_ms=40.0)]  # fmt: skip
    panel = gflops_figure(rows).axes[0]
    lines = [tuple(map(tuple, line.get_xydata())) for line in panel.lines if line.get_marker() != 'None']
    assert lines == [((5.678, 71.04), (9.0, 122.0)), ((5.678, 40.0),), ((9.0, 150.0),)]
    assert ((0, 0), (9.0, 122.0)) in [tuple(map(tuple, line.get_xydata())) for line in panel.lines], 'proportional'
    texts = {text.get_text() for text in panel.texts}
    assert {'dense', 'hybrid@8', 'onnxruntime float32', 'onnxruntime float16', 'torch-compile float32'} <= texts
    low, high = panel.get_ylim()
    assert low == 0 and high > 150.0 and panel.get_xlim()[0] < 5.678 < 9.0 < panel.get_xlim()[1]


def test_one_row():
    assert len(gflops_figure([ROW]).axes) == 1


def test_every_backend_has_a_colour_and_every_dtype_a_marker():
    assert set(BACKEND_COLORS) == set(MEASURED) and len(set(BACKEND_COLORS.values())) == len(BACKEND_COLORS)
    assert set(MARKERS) == {dtype for dtypes in MEASURED.values() for dtype in dtypes}
