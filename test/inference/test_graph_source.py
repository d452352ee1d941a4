"""Graphs: what they say about themselves, when they are made anew, and which are refused."""

import dataclasses
import json
import logging
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from tiny_model import write_lively_model

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.export.export_onnx import export_model
from hybrid_seg_ros.inference.backends.file_cache import cached_folder, is_intact
from hybrid_seg_ros.inference.backends.graph_info import GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import CachedGraphs, GraphFiles, read_graphs, with_operating_point
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, ModelSpec, SlidingWindow, TokenBudget, Variant

SIZE = (96, 128)


@pytest.fixture(scope='module')
def exported(spec, tmp_path_factory):
    """A graph with a fixed keep, and the graphs of a threshold."""
    folder = tmp_path_factory.mktemp('exported')
    variant = Variant.parse('hybrid@6+8')
    export_model(spec, variant, TokenBudget(keep=(0.5, 9)), folder / 'fixed.onnx', outputs='scores')
    export_model(spec, variant, TokenBudget(threshold=0.3), folder / 'parts.onnx')
    single = Variant.parse('dtop@6+8')  # one file, as nothing merges
    export_model(spec, single, TokenBudget(keep=(0.5, 9)), folder / 'single.onnx', outputs='scores')
    return folder


@pytest.mark.parametrize(
    ('variant', 'budget', 'tokens', 'kept', 'parts'),
    [
        ('dense', {}, 48, (), ('whole',)),
        ('cts', {'merged_windows': 4}, 36, (), ('whole',)),
        ('dtop@8', {'keep': 0.5}, 48, ((8, 24),), ('whole',)),
        ('cts', {'merged_windows': {4: 1, 2: 3}}, 24, (), ('whole',)),
        ('hybrid@6+8', {'merged_windows': 0.5, 'keep': (0.5, 7)}, 30, ((6, 15), (8, 7)), ('whole',)),
        ('hybrid@8', {'threshold': 0.5}, 33, (), ('head', 'tail')),
        ('dtop@6+8', {'threshold': 0.5}, 48, (), ('head', 'middle@8', 'tail')),
    ],
)
def test_numbers_are_fixed(spec, variant, budget, tokens, kept, parts):
    spec = dataclasses.replace(spec, window_sizes=(2, 4))
    info = GraphInfo.describe(spec, Variant.parse(variant), TokenBudget(**budget), SIZE)
    policy = ('policy',) if 'merged_windows' in budget or variant.startswith('hybrid') else ()
    assert (info.tokens, info.kept, info.parts) == (tokens, kept, (*policy, *parts))
    assert info.by_threshold == (len(parts) > 1)
    assert GraphInfo.from_json(info.to_json()) == info


def test_the_threshold_is_no_part_of_a_graph(spec):
    variant = Variant.parse('hybrid@8')
    infos = [GraphInfo.describe(spec, variant, TokenBudget(threshold=value), SIZE) for value in (0.2, 0.9)]
    assert infos[0] == infos[1]


def test_a_graph_is_made_once(spec, tmp_path, caplog):
    source = CachedGraphs(spec, 'float32', tmp_path)
    points = [(Variant.parse('hybrid@8'), TokenBudget(threshold=0.3)), (Variant.parse('cts'), TokenBudget())]
    with caplog.at_level(logging.INFO):
        first = [source.find(*point, 1, SIZE) for point in points]
        assert sum('exporting' in record.message for record in caplog.records) == 2
        assert [CachedGraphs(spec, 'float32', tmp_path).find(*point, 1, SIZE) for point in points] == first
        assert sum('exporting' in record.message for record in caplog.records) == 2
    assert len({path.parent for graphs in first for path in graphs.files.values()}) == 2
    source.find(Variant.parse('cts'), TokenBudget(merged_windows=3), 1, SIZE)
    source.find(Variant.parse('cts'), TokenBudget(), 2, SIZE)
    assert len(list((tmp_path / 'graphs').iterdir())) == 4


def test_the_log_names_the_folder_where_a_graph_is_kept_unless_the_caller_chose_it(spec, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv('HYBRID_SEG_CACHE_DIR', str(tmp_path))
    with caplog.at_level(logging.INFO):
        for folder in (None, tmp_path / 'given'):
            CachedGraphs(spec, 'float32', folder).find(Variant(), TokenBudget(), 1, SIZE)
    own, given = (record.getMessage() for record in caplog.records if 'exporting' in record.getMessage())
    assert str(tmp_path) in own and str(tmp_path) not in given


def test_weights_without_a_stated_hash_are_told_apart(tmp_path):
    names = set()
    for head in ('atm', 'light'):
        spec = ModelSpec.load(write_lively_model(tmp_path, policy='patch_mlp', auxiliary_head=head))
        unstated = dataclasses.replace(spec, sha256=None, auxiliary_head=head)
        found = CachedGraphs(unstated, 'float32', tmp_path / 'cache').find(Variant(), TokenBudget(), 1, SIZE)
        assert found.info.weights_sha256 == spec.sha256
        names.add(found.files['whole'].parent.name)
    assert len(names) == 2


def test_crops_share_the_graph_that_is_warmed_up(tmp_path):
    form = {'policy': 'patch_mlp', 'inference': 'sliding', 'sliding_window': SlidingWindow(96, 64)}
    spec = ModelSpec.load(write_lively_model(tmp_path, **form))
    source = CachedGraphs(spec, 'float32', tmp_path / 'cache')
    found = [source.find(Variant(), TokenBudget(), batch, (96, 96)) for batch in (1, 3)]
    assert found[0] == found[1] and found[0].info.batch == 1


def test_parts_of_two_exports_are_refused(spec, exported, tmp_path):
    for path in exported.glob('parts.*'):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other = dataclasses.replace(spec, name='other')
    export_model(other, Variant.parse('hybrid@6+8'), TokenBudget(threshold=0.3), tmp_path / 'new' / 'parts.onnx')
    (tmp_path / 'new' / 'parts.head.onnx').replace(tmp_path / 'parts.head.onnx')
    with pytest.raises(GraphError, match='policy.onnx: is of another export than parts.head.onnx'):
        read_graphs(tmp_path / 'parts.onnx')


def test_an_older_graph_of_the_same_name_is_noticed(exported, tmp_path):
    (tmp_path / 'm.onnx').write_bytes((exported / 'fixed.onnx').read_bytes())
    for path in exported.glob('parts.*'):
        (tmp_path / path.name.replace('parts', 'm')).write_bytes(path.read_bytes())
    with pytest.raises(GraphError, match='m.head.onnx are both there'):
        read_graphs(tmp_path / 'm.onnx')
    assert read_graphs(tmp_path / 'm.head.onnx').info.by_threshold


DAMAGES = {
    'truncated': lambda path: path.write_bytes(path.read_bytes()[:-2]),
    'altered': lambda path: path.write_bytes(b'?' + path.read_bytes()[1:]),
    'missing': lambda path: path.unlink(),
    'empty': lambda path: path.write_bytes(b''),
    'manifest damaged': lambda path: (path.parent / 'manifest.json').write_text('{'),
    'manifest missing': lambda path: (path.parent / 'manifest.json').unlink(),
}


@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_is_made_again(tmp_path, damage):
    def make(folder):
        made.append(folder)
        (folder / 'a').write_text('content')
        (folder / 'b').write_text('more')

    made = []
    for _ in range(2):
        assert cached_folder(tmp_path / 'kept', make) == tmp_path / 'kept'
    assert len(made) == 1
    damage(tmp_path / 'kept' / 'a')
    assert not is_intact(tmp_path / 'kept')
    cached_folder(tmp_path / 'kept', make)
    assert len(made) == 2 and (tmp_path / 'kept' / 'a').read_text() == 'content'
    assert [entry.name for entry in tmp_path.iterdir()] == ['kept'], 'nothing half made is left'


def test_a_damaged_graph_is_exported_again(spec, tmp_path):
    source = CachedGraphs(spec, 'float32', tmp_path)
    point = (Variant(), TokenBudget(), 1, SIZE)
    path = source.find(*point).files['whole']
    content = path.read_bytes()
    DAMAGES['truncated'](path)
    assert source.find(*point).files['whole'].read_bytes() == content
    assert [entry.name for entry in (tmp_path / 'graphs').iterdir()] == [path.parent.name]


def test_a_cache_folder_that_cannot_be_written_is_named(spec, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'cannot write the cache folder .*/file/cache/graphs .*HYBRID_SEG_CACHE_DIR'):
        CachedGraphs(spec, 'float32', tmp_path / 'file' / 'cache').find(Variant(), TokenBudget(), 1, SIZE)


def test_an_export_that_fails_leaves_nothing(spec, tmp_path):
    source = CachedGraphs(dataclasses.replace(spec, weights='missing.safetensors'), 'float32', tmp_path)
    with pytest.raises(FileNotFoundError, match='missing.safetensors'):
        source.find(Variant(), TokenBudget(), 1, SIZE)
    assert list((tmp_path / 'graphs').iterdir()) == []


@pytest.mark.parametrize('name', ['fixed.onnx', 'parts.onnx', 'parts.head.onnx'])
def test_exported_files_run_at_their_own_operating_point(tiny, exported, name):
    spec = ModelSpec.load(tiny)
    own = with_operating_point(spec, read_graphs(exported / name).info)
    pipeline = load_pipeline(tiny, 'onnxruntime', graph=exported / name)
    assert str(pipeline.variant) == 'hybrid@6+8' and pipeline.spec == own
    assert own.budget.keep == ((16, 9) if name == 'fixed.onnx' else None)
    pipeline.warm_up()


@pytest.mark.parametrize(('name', 'options', 'complaint'), [
    ('fixed.onnx', {'variant': 'dense'}, 'was exported for variant hybrid@6[+]8, expected dense'),
    ('fixed.onnx', {'keep': 0.3}, r'was exported for kept \(\(6, 16\), \(8, 9\)\), expected \(\(6, 10\), \(8, 3\)\)'),
    ('fixed.onnx', {'threshold': 0.5}, r'was exported for kept .*expected \(\)'),
    ('parts.onnx', {'keep': 0.5}, r'was exported for kept \(\), expected'),
    ('fixed.onnx', {'precision': 'float16'}, 'was exported for precision float32, expected float16'),
    ('fixed.onnx', {'inference': 'sliding'}, r'input_size_hw \(96, 128\), expected \(512, 512\)'),
    ('fixed.onnx', {'backend': 'pytorch'}, 'pytorch runs no graph'),
])  # fmt: skip
def test_another_operating_point_is_refused_before_the_first_frame(tiny, exported, name, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_pipeline(tiny, **{'backend': 'onnxruntime', **options}, graph=exported / name)


def test_the_graph_of_other_weights_is_refused(exported, tmp_path):
    other = write_lively_model(tmp_path, policy='patch_mlp', auxiliary_head='light')
    with pytest.raises(GraphError, match='was exported for weights_sha256'):
        load_pipeline(other, 'onnxruntime', graph=exported / 'fixed.onnx')


def test_files_that_are_not_ours(exported, tmp_path, spec):
    with pytest.raises(FileNotFoundError, match='nothing.onnx'):
        read_graphs(tmp_path / 'nothing.onnx')
    damaged, foreign, alone = (tmp_path / name for name in ('damaged.onnx', 'foreign.onnx', 'alone.head.onnx'))
    damaged.write_bytes((exported / 'fixed.onnx').read_bytes()[:-1000])
    proto = onnx.load(exported / 'fixed.onnx')
    del proto.metadata_props[:]
    onnx.save(proto, foreign)
    for path in (damaged, foreign):
        with pytest.raises(GraphError, match='expected an ONNX file that hybrid_seg export wrote, whole'):
            read_graphs(path)
    alone.write_bytes((exported / 'parts.head.onnx').read_bytes())
    with pytest.raises(FileNotFoundError, match='missing .*alone.middle@8.onnx, .*alone.tail.onnx'):
        read_graphs(alone)


class Pictures(CalibrationDataReader):
    """One picture of noise to calibrate with."""

    def __init__(self):
        self.feeds = iter([{'image': np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)}])

    def get_next(self):
        return next(self.feeds, None)


def static(layout):
    return lambda source, path: quantize_static(source, path, Pictures(), layout, op_types_to_quantize=['MatMul'])


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('quantize', 'operator'), [
    (lambda source, path: quantize_dynamic(source, path, op_types_to_quantize=['MatMul']), 'MatMulInteger'),
    (static(QuantFormat.QDQ), 'DequantizeLinear'),
    (static(QuantFormat.QOperator), 'QLinearMatMul'),
], ids=['dynamic', 'QDQ', 'QOperator'])  # fmt: skip
def test_a_quantised_graph_does_not_pass_as_float32(tiny, exported, tmp_path, quantize, operator):
    quantize(exported / 'single.onnx', tmp_path / 'q.onnx')
    with pytest.raises(GraphError, match=f'q.onnx: is quantised .int8: .*{operator}.*; expected float32 or float16'):
        load_pipeline(tiny, 'onnxruntime', graph=tmp_path / 'q.onnx')


def test_a_graph_converted_to_float16_is_one_of_float16(tiny, exported, tmp_path):
    proto = convert_float_to_float16(onnx.load(exported / 'single.onnx'), keep_io_types=True)
    onnx.save(proto, tmp_path / 'half.onnx')
    assert json.loads(proto.metadata_props[0].value)['precision'] == 'float32', 'what it says of itself'
    with pytest.raises(GraphError, match='was exported for precision float16, expected float32'):
        load_pipeline(tiny, 'onnxruntime', precision='float32', graph=tmp_path / 'half.onnx')
    pipeline = load_pipeline(tiny, 'onnxruntime', graph=tmp_path / 'half.onnx')
    assert pipeline.precision == 'float16' and pipeline(np.zeros((50, 60, 3), np.uint8)).labels.shape == (50, 60)


def test_weights_of_other_types_are_named(exported, tmp_path):
    proto = onnx.load(exported / 'single.onnx')
    weight = proto.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).astype(np.float64), weight.name))
    onnx.save(proto, tmp_path / 'mixed.onnx')
    with pytest.raises(GraphError, match='mixed.onnx: has weights of DOUBLE, FLOAT; expected float32 or float16'):
        read_graphs(tmp_path / 'mixed.onnx')


def test_a_label_map_cannot_be_finished(spec, tmp_path):
    export_model(spec, Variant(), TokenBudget(), tmp_path / 'labels.onnx')
    with pytest.raises(GraphError, match='export it with --outputs scores'):
        GraphFiles(tmp_path / 'labels.onnx', spec, 'float32')


WITHOUT_TORCH = """
import importlib.abc, json, sys, numpy
class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition('.')[0] == 'torch':
            raise ModuleNotFoundError("No module named 'torch'", name='torch')
sys.meta_path.insert(0, NoTorch())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == 'torch' else find_spec(name, package)
from hybrid_seg_ros import load_pipeline
pipeline = load_pipeline(**json.loads(sys.argv[1]))
result = pipeline(numpy.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=numpy.uint8))
print(json.dumps([pipeline.backend_name, result.tokens.stages, result.labels.tolist()]))
"""


def run_without_torch(**options):
    command = [sys.executable, '-c', WITHOUT_TORCH, json.dumps(options, default=str)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(('backend', 'name'), [('onnxruntime', 'fixed.onnx'), ('openvino', 'parts.onnx')])
def test_exported_files_run_without_pytorch(tiny, exported, name, backend):
    options = {'model': tiny, 'backend': backend, 'precision': 'float32', 'graph': exported / name}
    done = run_without_torch(**options)
    assert done.returncode == 0, done.stderr
    taken, stages, labels = json.loads(done.stdout)
    expected = load_pipeline(**options)(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    assert taken == backend and stages == expected.tokens.stages and np.array_equal(labels, expected.labels)


def test_without_pytorch_the_cache_is_enough_and_nothing_in_it_says_what_to_do(tiny, tmp_path):
    options = {'model': tiny, 'backend': 'onnxruntime', 'cache_dir': tmp_path}
    refused = run_without_torch(**options)
    assert refused.returncode == 1
    for part in ('no graph of tiny, variant hybrid@6+8, float32', 'hybrid_seg export', 'engine_path', '--graph'):
        assert part in refused.stderr
    load_pipeline(**options).warm_up()
    assert run_without_torch(**options).returncode == 0


def test_metadata_is_plain_json(exported):
    entries = {entry.key: entry.value for entry in onnx.load(exported / 'fixed.onnx').metadata_props}
    assert json.loads(entries['hybrid_seg_ros'])['kept'] == [[6, 16], [8, 9]]
    assert set(json.loads(entries['hybrid_seg_ros'])['variant'].split()) <= set(PAPER_VARIANTS)
