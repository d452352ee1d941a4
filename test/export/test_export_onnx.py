"""`hybrid_seg export`: what the graphs take and give, for every variant, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_model import write_lively_model

from hybrid_seg_ros import cli
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.inference.pipeline_options import windows_value
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, Backbone, ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.exportable import label_map
from hybrid_seg_ros.network.token_merging import choose_windows, count_merged_windows
from hybrid_seg_ros.network.token_pruning import class_confidence

GENERATOR = np.random.default_rng(0)
DATA_DEPENDENT = {'If', 'Loop', 'Scan', 'NonZero', 'Unique', 'Compress', 'NonMaxSuppression'}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    form = {'policy': 'patch_mlp', 'refinement': 'image', 'auxiliary_head': 'light'}
    return write_lively_model(tmp_path_factory.mktemp('model'), **form)


def export(model: Path, output: Path, *options: str) -> int:
    return cli.main(['export', '--model', str(model), '--output', str(output), *options])


@pytest.mark.parametrize(('variant', 'batch'), [*((variant, 1) for variant in PAPER_VARIANTS), ('hybrid@6+8', 2)])
def test_one_graph_with_fixed_shapes(model, tmp_path, variant, batch):
    path = tmp_path / 'model.onnx'
    assert export(model, path, '--variant', variant, '--keep', '0.6', '--batch', str(batch)) == 0
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [('', 17)]
    operators = {node.op_type for node in proto.graph.node}
    assert not DATA_DEPENDENT & operators
    if '@' not in variant:  # which windows merge is chosen outside
        assert not {'TopK', 'ScatterElements', 'ScatterND', 'GatherElements'} & operators
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
              for value in (*proto.graph.input, *proto.graph.output)}  # fmt: skip
    spec = ModelSpec.load(model)
    image = GENERATOR.integers(0, 256, (batch, 96, 128, 3), dtype=np.uint8)
    feeds, layout = {'image': image}, {}
    if Variant.parse(variant).merges:
        policy = onnxruntime.InferenceSession(str(path.with_name('model.policy.onnx')))
        scores = dict(zip(spec.window_sizes, policy.run(None, {'image': image})))
        choice = choose_windows(scores, count_merged_windows((6, 8), spec.budget.windows), (6, 8))
        feeds.update(token_source=choice.source, token_of_cell=choice.token_of_cell)
        layout = {'token_source': [*choice.source.shape], 'token_of_cell': [batch, 48]}
    report = {'pruned_after_layer': [batch, 6, 8]} if '@' in variant else {}
    assert shapes == {'image': [batch, 96, 128, 3], **layout, 'labels': [batch, 96, 128],
                      'confidence': [batch, 96, 128], **report}  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    labels, confidence, *pruned = session.run(None, feeds)
    assert labels.dtype == np.uint8 and confidence.dtype == np.float32
    assert [each.dtype for each in pruned] == [np.uint8] * len(report)
    network = load_model(spec)
    with torch.no_grad():
        output = network(network.normalize(torch.from_numpy(image)), Variant.parse(variant), TokenBudget(
            spec.budget.merged_windows, keep=0.6))  # fmt: skip
        expected = label_map(output, (96, 128))
    assert np.mean(labels == expected[0].numpy()) > 0.999
    assert np.abs(confidence - expected[1].numpy()).max() < 1e-3
    expected_report = output.layout.unmerge(output.pruned_after_layer[:, :, None])[:, :, 0].numpy()
    assert all(np.array_equal(each.reshape(batch, -1), expected_report) for each in pruned)


PREFIX = Backbone(24, 12, 3, class_token=True, register_tokens=4, final_norm=True)


@pytest.mark.parametrize(('overrides', 'windows', 'in_parts'), [
    ({'window_sizes': (2, 4, 8)}, '8:1,4:1,2:3', False), ({'window_sizes': (2, 4, 8)}, '8:1,4:1,2:3', True),
    ({'window_sizes': (2, 4)}, '4:2,2:0', False), ({'backbone': PREFIX}, '5', True),
    ({'backbone': PREFIX, 'head': 'light', 'window_sizes': (2, 4)}, '4:1,2:5', False),
], ids=str)  # fmt: skip
def test_windows_of_several_sizes_and_prefix_tokens(tmp_path, overrides, windows, in_parts):
    """The graphs merge, prune and score as PyTorch does; tokens in front of the patch tokens never leave."""
    overrides = {'policy': 'patch_mlp', 'refinement': 'image', 'auxiliary_head': 'light', **overrides}
    model = write_lively_model(tmp_path, input_size_hw=(144, 208), **overrides)
    image = street_scene((144, 208))
    variant, budget = Variant.parse('hybrid@6+8'), TokenBudget(windows_value(windows), keep=(0.6, 0.5))
    rule = ('--keep', '0.6', '0.5')
    if in_parts:
        budget = TokenBudget(budget.merged_windows, threshold=middle_confidence(model, image, variant, budget))
        rule = ('--threshold', str(budget.threshold))
    graph = tmp_path / 'm.onnx'
    options = ('--variant', str(variant), *rule, '--merged-windows', windows, '--outputs', 'scores')
    assert export(model, graph, *options) == 0
    pipeline = load_pipeline(model, 'pytorch')
    pipeline.set_operating_point(variant, budget)
    expected = pipeline(image)
    running = load_pipeline(model, 'onnxruntime', graph=graph)
    running.set_operating_point(variant, budget)
    found = running(image)
    running.close()
    sizes = {side: n for side, n in count_merged_windows((9, 13), budget.windows).items() if n}
    assert found.tokens.windows == expected.tokens.windows == sizes
    assert found.tokens.stages == expected.tokens.stages
    assert expected.tokens.entering > expected.tokens.kept[0][1] >= expected.tokens.kept[1][1]
    assert np.array_equal(found.tokens.window_size, expected.tokens.window_size)
    assert np.array_equal(found.tokens.pruned_after_layer, expected.tokens.pruned_after_layer)
    assert np.mean(found.labels == expected.labels) > 0.999
    assert np.abs(found.confidence - expected.confidence).max() < 1e-3


def middle_confidence(model, image, variant, budget):
    """Return a threshold in the widest gap of the confidences at the first pruning layer, about the middle."""
    network = load_model(ModelSpec.load(model))
    with torch.no_grad():
        stage = network(network.normalize(torch.from_numpy(image)[None]), variant, budget).stages[0]
        present = AtmHead.class_probability(stage.class_logits)
        confidence = class_confidence(present, stage.mask_logits)[0][0].sort().values
    middle = confidence[len(confidence) // 3 : 2 * len(confidence) // 3]
    return round(float(middle[(place := int(middle.diff().argmax())) : place + 2].mean()), 6)


def test_a_threshold_cuts_the_graph(model, tmp_path, capsys):
    assert export(model, tmp_path / 'm.onnx', '--variant', 'hybrid@6+8', '--threshold', '0.8') == 0
    parts = ('head', 'middle@8', 'policy', 'tail')
    assert sorted(path.name for path in tmp_path.iterdir()) == [f'm.{part}.onnx' for part in parts]
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
