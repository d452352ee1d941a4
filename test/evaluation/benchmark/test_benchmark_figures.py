"""Bars are as long as rows take; lines of milliseconds over GFLOPs go through the rows."""

import dataclasses

import cv2
import numpy as np
import pytest
from test_benchmark_results import DENSE, ROW

from hybrid_seg_ros.evaluation.benchmark.figures import BACKEND_COLORS, MARKERS, bar_figure, gflops_figure
from hybrid_seg_ros.evaluation.benchmark.plan import MEASURED
from hybrid_seg_ros.evaluation.benchmark.results import Benchmark
from hybrid_seg_ros.evaluation.pages.figures import SIZE_PX, VARIANT_COLORS, save_figure

pytest.importorskip('matplotlib', reason='comes with requirements/ros.txt, or from the system')


def draw(rows, path):
    benchmark = Benchmark('cpu', rows)
    save_figure(bar_figure(benchmark, benchmark.models), path)


def bars_of(picture, color):
    """Return the length of the longest bar of a colour, and the number of lines with such bars."""
    rgb = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    hit = (picture[:, :, ::-1] == rgb).all(2)
    lengths = np.zeros(len(hit), int)  # of the longest run in each line of pixels
    run = np.zeros(len(hit), int)
    for column in hit.T:
        run = np.where(column, run + 1, 0)
        lengths = np.maximum(lengths, run)
    return int(lengths.max()), int((np.diff(np.concatenate([[0], lengths > 50])) == 1).sum())


@pytest.mark.parametrize('models, backends', [(1, 1), (3, 2)])
def test_a_bar_per_row(tmp_path, models, backends):
    steps = {'preprocess': 0.0, 'network': 80.0, 'postprocess': 0.0}
    rows = [
        dataclasses.replace(row, model=f'model {model}', backend=f'backend {backend}', median_ms=ms, parts_ms=steps)
        for model in range(models) for backend in range(backends) for row, ms in ((DENSE, 80.0), (ROW, 40.0))
    ]  # fmt: skip
    draw(tuple(rows), tmp_path / 'bars.png')
    assert [path.name for path in tmp_path.iterdir()] == ['bars.png']
    picture = cv2.imread(str(tmp_path / 'bars.png'))
    assert picture.shape[1] == SIZE_PX[0]
    dense, hybrid = (bars_of(picture, VARIANT_COLORS[variant]) for variant in ('dense', 'hybrid@8'))
    assert dense[1] == hybrid[1] == backends * -(-models // 2), 'two panels beside one another share their lines'
    assert dense[0] == pytest.approx(2 * hybrid[0], abs=4)


def test_pale_ends_are_pre_and_postprocessing(tmp_path):
    lengths = []
    for network in (80.0, 40.0):
        steps = {'preprocess': 10.0, 'network': network, 'postprocess': 70.0 - network}
        row = dataclasses.replace(ROW, median_ms=80.0, parts_ms=steps)
        draw((row,), tmp_path / 'bars.png')
        lengths.append(bars_of(cv2.imread(str(tmp_path / 'bars.png')), VARIANT_COLORS['hybrid@8'])[0])
    assert lengths[0] > 1.5 * lengths[1] > 0


def test_a_line_per_backend_and_dtype():
    dense = dataclasses.replace(DENSE, gflops=9.0)
    rows = [dense, ROW, dataclasses.replace(dense, backend='torch-compile', median_ms=150.0),
            dataclasses.replace(ROW, dtype='float16', median_ms=40.0)]  # fmt: skip
    assert len(gflops_figure([ROW]).axes) == 1
    panel = gflops_figure(rows).axes[0]
    lines = [tuple(map(tuple, line.get_xydata())) for line in panel.lines if line.get_marker() != 'None']
    assert lines == [((5.678, 71.04), (9.0, 122.0)), ((5.678, 40.0),), ((9.0, 150.0),)]
    assert ((0, 0), (9.0, 122.0)) in [tuple(map(tuple, line.get_xydata())) for line in panel.lines], 'proportional'
    texts = {text.get_text() for text in panel.texts}
    assert {'dense', 'hybrid@8', 'onnxruntime float32', 'onnxruntime float16', 'torch-compile float32'} <= texts
    low, high = panel.get_ylim()
    assert low == 0 and high > 150.0 and panel.get_xlim()[0] < 5.678 < 9.0 < panel.get_xlim()[1]


def test_every_backend_has_a_colour_and_every_dtype_a_marker():
    assert set(BACKEND_COLORS) == set(MEASURED) and len(set(BACKEND_COLORS.values())) == len(BACKEND_COLORS)
    assert set(MARKERS) == {dtype for dtypes in MEASURED.values() for dtype in dtypes}
