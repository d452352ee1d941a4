"""`hybrid_seg check-parity`: agreement is measured, and what falls short is said."""

import dataclasses

import cv2
import numpy as np
import pytest
from tiny_model import write_lively_model

from hybrid_seg_ros import cli
from hybrid_seg_ros.export.check_parity import compare
from hybrid_seg_ros.segmentation import Segmentation, StageTimings, TokenReport


def result(wrong_pixels=0, wrong_patches=0, entering=40, confidence=0.5):
    labels = np.zeros((100, 100), np.uint8)
    labels.flat[:wrong_pixels] = 3
    pruned = np.zeros((6, 8), np.uint8)
    pruned.flat[:wrong_patches] = 8
    tokens = TokenReport((6, 8), np.ones((6, 8), np.uint8), pruned, entering, ((8, 20),))
    return Segmentation(labels, np.full((100, 100), confidence, np.float32), tokens, StageTimings(1, 2, 3))


@pytest.mark.parametrize(('other', 'dtype', 'problem'), [
    ({}, 'float32', None),
    ({'wrong_pixels': 19}, 'float32', None),
    ({'wrong_pixels': 21}, 'float32', 'labels: expected 99.9 % the same'),
    ({'wrong_pixels': 99}, 'float16', None),
    ({'wrong_pixels': 101}, 'bfloat16', 'labels: expected 99.5 % the same'),
    ({'wrong_patches': 1}, 'float32', 'token report: expected 99.9 % the same'),
    ({'wrong_patches': 1}, 'bfloat16', None),
    ({'entering': 48}, 'float16', 'token report: expected as many tokens to enter'),
])  # fmt: skip
def test_what_falls_short(other, dtype, problem):
    found = compare([result(), result()], [result(), result(**other)], dtype)
    assert found['problem'] == problem
    assert found['worst_image'] == pytest.approx(100 - other.get('wrong_pixels', 0) / 100)
    assert found['same_labels'] == pytest.approx((100 + found['worst_image']) / 2)
    assert found['same_tokens'] == pytest.approx(100 - other.get('wrong_patches', 0) / 48 * 50)


def test_confidence_and_kept_counts():
    other = dataclasses.replace(result(confidence=0.75))
    found = compare([result()], [other], 'float32')
    assert found['confidence_error'] == pytest.approx(0.25) and found['kept_counts'] == (20,)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_lively_model(tmp_path_factory.mktemp('model'), policy='patch_mlp')


def test_the_command(model, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f'{index}.png'), image)
    options = ['--model', str(model), '--variants', 'cts', 'hybrid@8', '--backends', 'onnxruntime,openvino:float32',
               '--cache-dir', str(tmp_path / 'cache'), '--threshold', '0.3']  # fmt: skip
    assert cli.main(['check-parity', str(tmp_path), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('tiny, 2 images') and lines[-1] == 'all agree' and len(lines) == 2 + 3 * 2 + 1


@pytest.mark.parametrize(('arguments', 'complaint'), [
    (['missing.png'], 'missing.png: cannot be read: No such file'),
    (['.', '--variants', 'hybrid@7'], 'no auxiliary head after layer 7'),
    (['FOLDER'], 'no images in'),
    (['FRAME', '--backends', 'caffe'], 'unknown backend'),
    (['FRAME', '--backends', 'auto'], "unknown backend 'auto'; legal are pytorch"),
    (['FRAME', '--backends', 'onnxruntime:auto'], "unknown precision 'auto'; legal for onnxruntime are float32"),
    (['FRAME', '--backends', 'tensorrt'], 'backend tensorrt needs an NVIDIA GPU: expected device cuda, cuda:N'),
    (['FRAME', '--backends', 'openvino:float64'], 'unknown precision'),
])  # fmt: skip
def test_wrong_arguments(model, tmp_path, capsys, arguments, complaint):
    (tmp_path / 'empty').mkdir()
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((20, 20, 3), np.uint8))
    names = {'FOLDER': str(tmp_path / 'empty'), 'FRAME': str(tmp_path / 'a.png')}
    arguments = [names.get(argument, argument) for argument in arguments]
    assert cli.main(['check-parity', *arguments, '--model', str(model)]) == 1
    assert complaint in capsys.readouterr().err
