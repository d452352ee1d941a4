"""Every variant, in float32 and float16, is a graph that TensorRT takes: 8.6 by its rules, RTX by building it.

No GPU is needed: TensorRT for RTX builds for GPUs that are not here. Numbers are in test_backend_contract.py.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import onnx
import pytest
from rtx_library import rtx_library
from tiny_model import write_lively_model

from hybrid_seg_ros.inference.backends.graph_export import export_graphs
from hybrid_seg_ros.inference.backends.graph_info import HEAD, POLICY, TAIL, WHOLE, GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.tensorrt import engine_build
from hybrid_seg_ros.inference.backends.tensorrt.engine_build import (
    BuildOptions,
    build_parsed,
    build_plan,
    dynamic_shapes,
    parse_graph,
)
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, Backbone, ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model

SHIPPED = Path(__file__).parents[3] / 'models' / 'segvit_small_camvid.yaml'
SHIPPED_FORM = {
    'backbone': Backbone(24, 12, 3, class_token=True, final_norm=True), 'policy': 'half_size', 'head': 'light',
    'auxiliary_head': 'light', 'refinement': 'image', 'window_sizes': (2, 4, 8), 'input_size_hw': (128, 192),
}  # fmt: skip
"""What the shipped model is, in small: an engine takes a second instead of half a minute."""
GPUS = BuildOptions((86, 120))
PRECISIONS = {'float32': 'FLOAT', 'float16': 'HALF'}
FIXED, THRESHOLD = {'keep': (0.6,)}, {'keep': None}
CASES = [
    *((variant, precision, FIXED, 1, 'scores') for variant in PAPER_VARIANTS for precision in PRECISIONS),
    *(('hybrid@6+8', precision, THRESHOLD, 1, 'scores') for precision in PRECISIONS),
    ('hybrid@8', 'float32', FIXED, 2, 'scores'),
    ('hybrid@8', 'float32', FIXED, 1, 'labels'),
]  # fmt: skip

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
NUMBERS = FLOATS | {onnx.TensorProto.INT32, onnx.TensorProto.INT64}  # INT64 it takes as INT32
BOOLS = {onnx.TensorProto.BOOL}
TAKEN_BY_8_6 = {
    **dict.fromkeys(
        ['ArgMax', 'AveragePool', 'Clip', 'Conv', 'Erf', 'Exp', 'LayerNormalization', 'Log', 'LogSoftmax', 'MatMul',
         'Pow', 'ReduceMax', 'ReduceMean', 'Relu', 'Resize', 'Sigmoid', 'Softmax', 'Sqrt', 'TopK'], FLOATS),
    **dict.fromkeys(
        ['Add', 'Cast', 'Concat', 'ConstantOfShape', 'Div', 'Equal', 'Expand', 'Flatten', 'Gather', 'GatherElements',
         'Greater', 'Identity', 'Less', 'Mod', 'Mul', 'Neg', 'Pad', 'Range', 'Reshape', 'ScatterElements', 'Shape',
         'Slice', 'Split', 'Squeeze', 'Sub', 'Transpose', 'Unsqueeze'], NUMBERS),
    **dict.fromkeys(['And', 'Not', 'Where', 'Xor'], BOOLS),
}  # fmt: skip
"""The operators that the graphs have, all of them in the support matrix of the ONNX parser of TensorRT 8.6, each with
the types that it allows for the first input. None makes a shape depend on data."""
COMPLAINTS = ('size mismatch', 'error', 'fail', 'not supported', 'unsupported', 'invalid')
"""What a build log may not say; the first is what the paper's export met."""


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Exports a case once; returns what it is, and the file of each part."""
    model = write_lively_model(tmp_path_factory.mktemp('model'), **SHIPPED_FORM)

    @cache
    def export(index: int) -> tuple[GraphInfo, dict[str, Path]]:
        variant, precision, budget, batch, outputs = CASES[index]
        spec = ModelSpec.load(model)
        budget = dataclasses.replace(spec.budget, **budget)
        size_hw = spec.input_size_hw
        info = GraphInfo.describe(spec, Variant.parse(variant), budget, size_hw, batch, precision, outputs)
        path = tmp_path_factory.mktemp('graphs') / 'graph.onnx'
        export_graphs(load_model(spec), info, path)
        return info, {part: info.part_path(path, part) for part in info.parts}

    return export


def each_case(test):
    names = ['-'.join([variant, precision, *budget, f'batch {batch}', outputs])
             for variant, precision, budget, batch, outputs in CASES]  # fmt: skip
    return pytest.mark.parametrize('case', range(len(CASES)), ids=names)(test)


def expected_tensors(info: GraphInfo, part: str) -> tuple[dict, dict]:
    """The inputs and outputs of a part: type and shape by name, -1 where it depends on the image."""
    real, batch, n = PRECISIONS[info.precision], info.batch, info.tokens
    grid, cells = (8, 12), 8 * 12
    image = {'image': ('UINT8', (batch, 128, 192, 3))}
    if part == POLICY:
        return image, {f'scores_{w}': ('FLOAT', (batch, 8 // w, 12 // w)) for w in (2, 4, 8)}
    if POLICY in info.parts:
        image.update(token_source=('INT32', (batch, n)), token_of_cell=('INT32', (batch, cells)))
    report = {'pruned_after_layer': ('UINT8', (batch, *grid))} if info.prune_layers else {}
    detail = {'detail': (real, (1, 48, 32, 48))}
    scores = {'scores': ('FLOAT', (batch, 11, 32, 48))}

    def decided(count: int) -> dict:
        return {'next_tokens': (real, (1, count if count < 0 else count + 1, 24)), 'masks': ('FLOAT', (1, count, 11)),
                'confidence': ('FLOAT', (1, count)), 'token_class': ('INT32', (1, count))}  # fmt: skip

    if part == WHOLE and info.outputs == 'labels':
        return image, {'labels': ('UINT8', (batch, 128, 192)), 'confidence': ('FLOAT', (batch, 128, 192)), **report}
    if part == WHOLE:
        return image, {**scores, **report}
    if part == HEAD:
        image.pop('token_of_cell', None)
        return image, {**decided(n), **detail}
    stay = {'stay': ('INT32', (-1,))}
    if part != TAIL:
        return {'tokens': (real, (1, n + 1, 24)), **stay}, decided(-1)
    masks = {'masks_head': ('FLOAT', (1, n, 11)), 'masks_middle@8': ('FLOAT', (1, -1, 11))}
    tail_inputs = {'tokens': (real, (1, -1, 24)), **stay, 'row_of_cell': ('INT32', (cells,)), **masks, **detail}
    return tail_inputs, scores


def described(tensors) -> dict:
    return {tensor.name: (tensor.dtype.name, tuple(tensor.shape)) for tensor in tensors}


@pytest.fixture(scope='module')
def built():
    """What has been built: the policy network is the same graph in many cases."""
    return set()


@each_case
@pytest.mark.timeout(120)
def test_it_parses_and_builds_for_gpus_that_are_not_here(exported, built, case):
    info, files = exported(case)
    library = rtx_library()
    for part, path in files.items():
        with library.collected_log() as lines:
            graph = parse_graph(library, path, lines)
            assert (described(graph.inputs), described(graph.outputs)) == expected_tensors(info, part)
            layers = [graph.network.get_layer(index) for index in range(graph.network.num_layers)]
            shapes = [tuple(layer.get_output(index).shape) for layer in layers for index in range(layer.num_outputs)]
            assert part not in (WHOLE, HEAD) or min(min(shape, default=0) for shape in shapes) >= 0, 'static shapes'
            of_policy = (part, info.precision, info.batch)
            if part != POLICY or of_policy not in built:
                built.add(of_policy)
                assert len(build_parsed(library, graph, info, GPUS, lines)) > 10_000
        complaints = [line for line in lines if any(word in line.text.lower() for word in COMPLAINTS)]
        assert not complaints and {line.severity for line in lines} == {'INFO'}, complaints


@each_case
def test_it_keeps_to_what_tensorrt_8_6_takes(exported, case):
    info, files = exported(case)
    for path in files.values():
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True, data_prop=True)
        graph = model.graph
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [('', 17)]
        for node in graph.node:
            attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            assert attributes.get('reduction', b'none') == b'none', f'{node.name} adds up what it scatters'
            assert not any(isinstance(value, onnx.GraphProto) for value in attributes.values()), node.name
        types = {value.name: value.type.tensor_type.elem_type
                 for value in (*graph.value_info, *graph.input, *graph.output)}  # fmt: skip
        types.update((initializer.name, initializer.data_type) for initializer in graph.initializer)
        for node in graph.node:
            if node.op_type == 'Constant':
                types[node.output[0]] = onnx.helper.get_attribute_value(node.attribute[0]).data_type
        for node in graph.node:
            if node.op_type != 'Constant' and not (node.op_type == 'Cast' and node.input[0] == 'image'):
                assert node.op_type in TAKEN_BY_8_6, f'{node.name} ({node.op_type})'
                assert types[node.input[0]] in TAKEN_BY_8_6[node.op_type], f'{node.name} ({node.op_type})'
            if node.op_type.startswith('Scatter'):
                assert types[node.input[0]] == types[node.input[2]], f'{node.name} mixes types'
        of_bytes = {name for name, kind in types.items() if kind == onnx.TensorProto.UINT8}
        outputs = {value.name for value in graph.output}
        assert of_bytes <= {'image', *outputs}
        for node in graph.node:
            if of_bytes & {*node.input, *node.output}:
                assert node.op_type == 'Cast', f'{node.name}: TensorRT computes nothing else in uint8'


def test_the_axes_that_depend_on_the_image(exported):
    info, files = exported(len(PAPER_VARIANTS) * 2)
    assert info.by_threshold and list(files) == [POLICY, HEAD, 'middle@8', TAIL]
    library = rtx_library()
    n, usual = info.tokens, round(0.6 * info.tokens)
    with library.collected_log():
        found = {part: dynamic_shapes(parse_graph(library, path), info) for part, path in files.items()}
    stay = ((1,), (usual,), (n,))
    assert found[POLICY] == found[HEAD] == {}
    assert found['middle@8'] == {'stay': stay}
    assert found[TAIL] == {
        'stay': stay,
        'tokens': ((1, 2, 24), (1, usual + 1, 24), (1, n + 1, 24)),  # the class token goes with them
        'masks_middle@8': ((1, 1, 11), (1, usual, 11), (1, n, 11)),
    }


def test_without_a_profile_the_error_says_so(exported, monkeypatch):
    info, files = exported(len(PAPER_VARIANTS) * 2)
    monkeypatch.setattr(engine_build, 'dynamic_shapes', lambda graph, info: {})
    with pytest.raises(GraphError, match=r'graph\.tail\.onnx: tensorrt_rtx .* cannot build .*optimization profile'):
        build_plan(rtx_library(), files[TAIL], info, GPUS)


@pytest.mark.parametrize(('operator', 'attributes', 'complaint'), [
    ('Unique', {'sorted': 1}, r'graph.onnx: tensorrt_rtx .* cannot read it: node 0 only_one \(Unique\): '),
    ('GridSampler', {}, r'only_one \(GridSampler\)'),
])  # fmt: skip
def test_a_node_that_tensorrt_does_not_take_is_named(exported, tmp_path, operator, attributes, complaint):
    info, _ = exported(0)
    image = onnx.helper.make_tensor_value_info('image', onnx.TensorProto.FLOAT, [4])
    scores = onnx.helper.make_tensor_value_info('scores', onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node(operator, ['image'], ['scores'], name='only_one', **attributes)
    graph = onnx.helper.make_graph([node], 'g', [image], [scores])
    opset = [onnx.helper.make_opsetid('', 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / 'graph.onnx')
    with pytest.raises(GraphError, match=complaint):
        build_plan(rtx_library(), tmp_path / 'graph.onnx', info, GPUS)


def test_what_is_no_graph(exported, tmp_path):
    path = tmp_path / 'graph.onnx'
    path.write_bytes(b'no ONNX file')
    with pytest.raises(GraphError, match='graph.onnx: tensorrt_rtx .* cannot read it'):
        build_plan(rtx_library(), path, exported(0)[0], GPUS)


@pytest.mark.parametrize(('capabilities', 'complaint'), [
    ((87,), 'cannot build for compute capability 87; legal are 75, 80, 86, 89, 120'),
    ((89, 1, 2), 'cannot build for compute capability 1, 2; legal are 75'),
])  # fmt: skip
def test_gpus_that_it_does_not_know(exported, capabilities, complaint):
    info, files = exported(0)
    with pytest.raises(ValueError, match=complaint):
        build_plan(rtx_library(), files[WHOLE], info, BuildOptions(capabilities))


def test_a_workspace_of_nothing():
    with pytest.raises(ValueError, match='workspace: expected at least 1 MB, got 0'):
        BuildOptions(workspace_mb=0)


def check_build(library, paths, info):
    for path in paths:
        with library.collected_log() as lines:
            plan = build_parsed(library, parse_graph(library, path, lines), info, GPUS, lines)
        assert len(plan) > 10_000
        assert not [line for line in lines if any(word in line.text.lower() for word in COMPLAINTS)]


@pytest.mark.timeout(300)
def test_the_shipped_model_builds(tmp_path):
    spec = ModelSpec.load(SHIPPED)
    info = GraphInfo.describe(spec, spec.variant, spec.budget, spec.input_size_hw, precision='float16')
    check_build(rtx_library(), export_graphs(load_model(spec), info, tmp_path / 'graph.onnx'), info)


PAPER = {'policy': 'efficientnet_lite0', 'auxiliary_head': 'atm'}
CTS = {'variant': Variant.parse('cts')}


@pytest.mark.parametrize(('form', 'variant', 'budget'), [
    (PAPER, 'hybrid@6+8', FIXED),  # where the paper's own export met a size mismatch
    (PAPER, 'hybrid@8', {'threshold': 0.3}),
    ({'policy': 'patch_mlp', 'auxiliary_head': 'light'}, 'hybrid@8', FIXED),
    ({**PAPER, **CTS, 'head': 'segvit_atm'}, 'cts', {}),
    ({**PAPER, **CTS, 'head': 'mask_transformer'}, 'cts', {}),
], ids=str)  # fmt: skip
@pytest.mark.timeout(120)
def test_other_forms_of_the_model_build(tmp_path, form, variant, budget):
    spec = ModelSpec.load(write_lively_model(tmp_path, **form))
    budget = dataclasses.replace(spec.budget, **budget)
    info = GraphInfo.describe(spec, Variant.parse(variant), budget, (96, 128))
    check_build(rtx_library(), export_graphs(load_model(spec), info, tmp_path / 'graph.onnx'), info)
