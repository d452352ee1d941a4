"""`hybrid_seg export`: what the graphs take and give, for every variant, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_model import write_lively_model

from hybrid_seg_ros import cli
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.exportable import label_map

GENERATOR = np.random.default_rng(0)
DATA_DEPENDENT = {'If', 'Loop', 'Scan', 'NonZero', 'Unique', 'Compress', 'NonMaxSuppression'}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_lively_model(tmp_path_factory.mktemp('model'), refinement='image', auxiliary_head='light')


def export(model: Path, output: Path, *options: str) -> int:
    return cli.main(['export', '--model', str(model), '--output', str(output), *options])


@pytest.mark.parametrize('variant', PAPER_VARIANTS)
@pytest.mark.parametrize('batch', [1, 2])
def test_one_graph_with_fixed_shapes(model, tmp_path, variant, batch):
    path = tmp_path / 'model.onnx'
    assert export(model, path, '--variant', variant, '--keep', '0.6', '--batch', str(batch)) == 0
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [('', 17)]
    assert not DATA_DEPENDENT & {node.op_type for node in proto.graph.node}
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
              for value in (*proto.graph.input, *proto.graph.output)}  # fmt: skip
    assert shapes == {'image': [batch, 96, 128, 3], 'labels': [batch, 96, 128], 'confidence': [batch, 96, 128],
                      'window_size': [batch, 6, 8], 'pruned_after_layer': [batch, 6, 8]}  # fmt: skip

    image = GENERATOR.integers(0, 256, (batch, 96, 128, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    labels, confidence, window_size, pruned = session.run(None, {'image': image})
    assert labels.dtype == window_size.dtype == pruned.dtype == np.uint8 and confidence.dtype == np.float32
    spec = ModelSpec.load(model)
    network = load_model(spec)
    with torch.no_grad():
        output = network(network.normalize(torch.from_numpy(image)), Variant.parse(variant), TokenBudget(
            spec.budget.merged_windows, keep=0.6))  # fmt: skip
        expected = label_map(output, (96, 128))
    assert np.mean(labels == expected[0].numpy()) > 0.999
    assert np.abs(confidence - expected[1].numpy()).max() < 1e-3
    assert np.array_equal(pruned.reshape(batch, -1), output.layout.unmerge(
        output.pruned_after_layer[:, :, None])[:, :, 0].numpy())  # fmt: skip


def test_a_threshold_cuts_the_graph(model, tmp_path, capsys):
    assert export(model, tmp_path / 'm.onnx', '--variant', 'hybrid@6+8', '--threshold', '0.8') == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['m.head.onnx', 'm.middle@8.onnx', 'm.tail.onnx']
    assert 'as many as the threshold leaves' in capsys.readouterr().out
    for path in tmp_path.iterdir():
        proto = onnx.load(path)
        onnx.checker.check_model(proto, full_check=True)
        assert not DATA_DEPENDENT & {node.op_type for node in proto.graph.node}
        dynamic = {dim.dim_param for value in proto.graph.output for dim in value.type.tensor_type.shape.dim} - {''}
        assert dynamic == ({'kept'} if 'middle' in path.name else set())


@pytest.mark.parametrize(('options', 'complaint'), [
    (['--variant', 'hybrid@7', '--keep', '0.5'], 'no auxiliary head after layer 7'),
    (['--variant', 'hybrid@8', '--keep', '0.5', '--threshold', '0.5'], 'not both'),
    (['--variant', 'hybrid@8', '--threshold', '0.5', '--outputs', 'labels'], 'give a fixed keep for others'),
    (['--variant', 'hybrid@8', '--threshold', '0.5', '--batch', '2'], 'give a fixed keep for others'),
    (['--variant', 'cts', '--merged-windows', '100'], 'expected at most 12'),
    (['--variant', 'cts', '--batch', '0'], 'batch: expected at least 1'),
])  # fmt: skip
def test_what_cannot_be_exported(model, tmp_path, capsys, options, complaint):
    assert export(model, tmp_path / 'm.onnx', *options) == 1
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(model, tmp_path, capsys):
    (tmp_path / 'm.onnx').write_text('precious')
    assert export(model, tmp_path / 'm.onnx', '--variant', 'dense') == 1
    assert 'would overwrite' in capsys.readouterr().err and (tmp_path / 'm.onnx').read_text() == 'precious'
    assert export(model, tmp_path / 'm.onnx', '--variant', 'dense', '--force', '--precision', 'float16') == 0
    assert {value.data_type for value in onnx.load(tmp_path / 'm.onnx').graph.initializer} >= {
        onnx.TensorProto.FLOAT16}  # fmt: skip
    assert export(model, tmp_path / 'm.engine') == 1
    assert 'expected a name that ends in .onnx' in capsys.readouterr().err
