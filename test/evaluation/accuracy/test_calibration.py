"""Calibration of the confidence that prunes: the sums by hand, and the cells of a real run."""

import json
import math

import cv2
import numpy as np
import pytest
import torch
from tiny_model import tiny_spec, write_tiny_model

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.evaluation.accuracy.calibration import (
    BINS,
    draw_reliability,
    judge_cells,
    majority_labels,
    summarize,
)
from hybrid_seg_ros.evaluation.pages.figures import SIZE_PX, STYLES
from hybrid_seg_ros.model_spec import Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter


@pytest.mark.parametrize(
    'confidence, right, expected',
    [
        ([1.0, 1.0], [1, 1], 0.0),
        ([1.0, 1.0], [1, 0], 50.0),
        ([0.5, 0.5], [1, 0], 0.0),
        ([0.8, 0.8, 0.1, 0.1], [1, 1, 0, 0], 15.0),  # two bins, each with half of the cells: (20 + 10) / 2
        ([0.0], [0], 0.0),
        ([0.61, 0.65], [0, 1], 13.0),  # one bin, 9/15 to 10/15: accuracy 0.5, confidence 0.63
    ],
)
def test_expected_calibration_error(confidence, right, expected):
    stage = summarize(8, np.array(confidence), np.array(right, bool))
    assert stage.expected_calibration_error == pytest.approx(expected)
    assert sum(each.count for each in stage.bins) == stage.cells == len(right) and len(stage.bins) == BINS


def test_thresholds():
    stage = summarize(6, np.array([0.5, 0.9, 0.95, 0.99]), np.array([True, False, True, True]), (0.4, 0.9, 0.99))
    table = [(each.threshold, each.share, each.accuracy) for each in stage.thresholds]
    assert table == [(0.4, 100.0, 75.0), (0.9, 50.0, 100.0), (0.99, 0.0, None)]
    assert stage.at(0.9) is stage.thresholds[1]
    with pytest.raises(ValueError, match='got 0.8'):
        stage.at(0.8)
    with pytest.raises(ValueError, match='layer 6: expected at least one labelled cell'):
        summarize(6, np.empty(0), np.empty(0, bool))


def test_bins_hold_their_cells():
    rng = np.random.default_rng(1)
    confidence, right = rng.random(400).astype(np.float32), rng.random(400) < 0.5
    for each in summarize(8, confidence, right).bins:
        inside = (confidence > each.low) & (confidence <= each.high)
        assert each.count == inside.sum() > 0
        assert each.accuracy == pytest.approx(100 * right[inside].mean())
        assert 100 * each.low <= each.confidence <= 100 * each.high


@pytest.mark.parametrize(('merges', 'head'), [(False, 'atm'), (True, 'atm'), (True, 'light')])
def test_cells_have_the_confidence_of_their_token(merges, head):
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec(head=head)).eval()
    with torch.inference_mode():
        output = model(torch.randn(1, 3, 96, 128), Variant(merges=merges), model.spec.budget, supervise=True)
    judged = judge_cells(output)
    assert list(judged) == [6, 8, 12]
    tokens = output.layout.token_of_cell[0]
    for stage in output.stages:
        scores = stage.class_logits[0].softmax(1)[:, :1] * stage.mask_logits[0].sigmoid()  # (classes, N)
        confidence, classes = judged[stage.layer]
        assert np.allclose(confidence, scores.max(0).values[tokens], atol=1e-6)
        assert np.array_equal(classes, scores.argmax(0)[tokens])


def test_command(camvid_root, tiny_model, tmp_path, capsys):
    pytest.importorskip('matplotlib', reason='comes with requirements/ros.txt, or from the system')
    out, png = tmp_path / 'result.json', tmp_path / 'calibration.png'
    command = ['evaluate', '--model', str(tiny_model), '--root', str(camvid_root)]
    assert main([*command, '--json', str(out), '--calibration', str(png)]) == 0
    content = json.loads(out.read_text())
    assert [stage['layer'] for stage in content['calibration']] == [6, 8, 12]
    assert content['frames'] == 2 and {stage['cells'] for stage in content['calibration']} == {2 * 48}
    for stage in content['calibration']:
        assert [entry['threshold'] for entry in stage['thresholds']] == [0.3, 0.7, 0.8, 0.9, 0.95, 0.98]
        assert 0 <= stage['expected_calibration_error'] <= 100 and math.isfinite(stage['accuracy'])
    assert cv2.imread(str(png)).shape == (SIZE_PX[1], SIZE_PX[0], 3)
    assert 'after layer 8: expected calibration error' in capsys.readouterr().out
    assert main([*command, '--limit', '1', '--calibration']) == 0
    assert 'of 48 cells right' in capsys.readouterr().out


def test_what_cannot_be_judged_is_refused_before_anything_is_evaluated(camvid_root, tmp_path, capsys):
    linear = write_tiny_model(tmp_path, head='linear', variant=Variant(), auxiliary_layers=())
    for words, complaint in (([], 'expected head atm or light'),
                             (['--backend', 'onnxruntime'], '--calibration: expected backend pytorch')):  # fmt: skip
        assert main(['evaluate', '--model', str(linear), '--root', str(camvid_root), '--calibration', *words]) == 1
        captured = capsys.readouterr()
        assert complaint in captured.err and not captured.out


def cell(*values):
    return np.array(values, np.uint8).reshape(2, 2)


@pytest.mark.parametrize(
    'values, expected',
    [
        ((1, 1, 1, 1), 1), ((1, 2, 2, 0), 2), ((2, 2, 1, 1), 1), ((255, 255, 255, 2), 255), ((255, 255, 0, 2), 0),
        ((255, 255, 2, 2), 2), ((255, 255, 255, 255), 255),
    ],
)  # fmt: skip
def test_majority(values, expected):
    assert majority_labels(cell(*values), 2, 3).tolist() == [[expected]]


def test_majority_of_a_grid_that_is_not_square():
    labels = np.hstack([cell(0, 0, 0, 1), cell(1, 1, 1, 0), cell(2, 2, 255, 255)])
    assert majority_labels(labels, 2, 3).tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match='multiples of 4'):
        majority_labels(labels, 4, 3)


def test_reliability(tmp_path):
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    stages = [summarize(layer, confidence, rng.random(500) < confidence) for layer in (6, 8, 12)]
    draw_reliability(stages, 0.9, 'a title', tmp_path / 'reliability.png')
    picture = cv2.imread(str(tmp_path / 'reliability.png'))
    assert picture.shape == (SIZE_PX[1], SIZE_PX[0], 3)
    thirds = np.array_split(picture, 3, axis=1)
    blue = [int(STYLES['dtop@6+8'][0][start : start + 2], 16) for start in (5, 3, 1)]
    assert all((third == blue).all(2).sum() > 2000 for third in thirds)
