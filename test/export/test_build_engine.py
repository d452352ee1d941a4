"""`hybrid_seg build-engine`: engines beside the graphs, what they say, who takes them, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from rtx_library import rtx_library
from tiny_model import write_lively_model

from hybrid_seg_ros import cli
from hybrid_seg_ros.export.export_onnx import export_model
from hybrid_seg_ros.inference.backends import create_backend
from hybrid_seg_ros.inference.backends.graph_info import GraphError
from hybrid_seg_ros.inference.backends.graph_source import GraphFiles, read_graphs
from hybrid_seg_ros.inference.backends.tensorrt.engine_file import read_engine_info
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant, sha256_of

HYBRID = Variant.parse('hybrid@6+8')
PARTS = ['policy', 'head', 'middle@8', 'tail']


@pytest.fixture(scope='module')
def spec(tmp_path_factory):
    model = write_lively_model(tmp_path_factory.mktemp('model'), policy='patch_mlp', auxiliary_head='light')
    return ModelSpec.load(model)


@pytest.fixture(scope='module')
def exported(spec, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported')
    export_model(spec, HYBRID, TokenBudget(keep=(0.5, 9)), folder / 'fixed.onnx', outputs='scores')
    export_model(spec, HYBRID, TokenBudget(threshold=0.3), folder / 'parts.onnx')
    return folder


def build(*arguments) -> int:
    return cli.main(['build-engine', *map(str, arguments)])


@pytest.fixture(scope='module')
def built(exported):
    """Engines of both, beside the graphs."""
    rtx_library()
    assert build(exported / 'fixed.onnx', '--compute-capability', '8.9', '86') == 0
    assert build(exported / 'parts.head.onnx', '--compute-capability', '120', '--workspace-mb', '256') == 0
    return exported


@pytest.fixture
def folder(built, tmp_path):
    """A copy of them to spoil."""
    return Path(shutil.copytree(built, tmp_path / 'copy'))


def test_what_an_engine_says(built, spec):
    info = read_engine_info(built / 'fixed.engine')
    assert info.graph == read_graphs(built / 'fixed.onnx').info == read_graphs(built / 'fixed.engine').info
    assert info.part == 'whole' and info.onnx_sha256 == sha256_of(built / 'fixed.onnx')
    assert info.tensorrt == rtx_library().name and info.compute_capabilities == (86, 89) and info.gpu is None
    said = json.loads((built / 'fixed.engine.json').read_text())
    assert said['graph']['model'] == 'tiny' and said['engine_sha256'] == sha256_of(built / 'fixed.engine')


@pytest.mark.parametrize('name', ['parts.engine', 'parts.head.engine'])
def test_an_engine_for_each_part(built, name):
    graphs = read_graphs(built / name)
    assert graphs.info.by_threshold and list(graphs.files) == PARTS
    for part, path in graphs.files.items():
        assert path == built / f'parts.{part}.engine' and read_engine_info(path).part == part
        assert read_engine_info(path).compute_capabilities == (120,)
    assert not list(built.glob('*.partial'))


def test_another_place(built, tmp_path, capsys):
    output = tmp_path / 'new' / 'robot.engine'
    assert build(built / 'fixed.onnx', '--output', output, '--compute-capability', '89') == 0
    written = ['robot.policy.engine', 'robot.engine']
    assert sorted(path.name for path in output.parent.iterdir()) == sorted(
        name + end for name in written for end in ('', '.json'))  # fmt: skip
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        str(output.with_name(name)) for name in written]  # fmt: skip


def test_engines_are_found_for_their_operating_point(built, spec):
    for name, budget in [('fixed.engine', TokenBudget(keep=(0.5, 9))), ('parts.engine', TokenBudget(threshold=0.7))]:
        source = GraphFiles(built / name, spec, 'float32')
        assert set(source.find(HYBRID, budget, 1, (96, 128)).files.values()) <= set(built.glob('*.engine'))
        with pytest.raises(GraphError, match=f'{name}: was exported for variant hybrid@6.8, expected hybrid@8'):
            source.find(Variant.parse('hybrid@8'), TokenBudget(keep=0.5), 1, (96, 128))
    with pytest.raises(GraphError, match='precision float32, expected float16'):
        GraphFiles(built / 'fixed.engine', spec, 'float16').find(HYBRID, TokenBudget(keep=(0.5, 9)), 1, (96, 128))
    with pytest.raises(GraphError, match='weights_sha256 .*, expected 0000'):
        GraphFiles(built / 'fixed.engine', dataclasses.replace(spec, sha256='0' * 64), 'float32').find(
            HYBRID, TokenBudget(keep=(0.5, 9)), 1, (96, 128))  # fmt: skip


@pytest.mark.parametrize(('damage', 'error', 'complaint'), [
    ('parts.tail.engine', FileNotFoundError, 'expected its other parts beside it, missing .*parts.tail.engine'),
    ('parts.head.engine.json', FileNotFoundError, 'expected parts.head.engine.json beside it'),
])  # fmt: skip
def test_what_is_missing_is_named(folder, damage, error, complaint):
    (folder / damage).unlink()
    with pytest.raises(error, match=complaint):
        read_graphs(folder / 'parts.engine')


def test_a_damaged_engine_is_refused(folder):
    path = folder / 'fixed.engine'
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(GraphError, match='fixed.engine: is damaged, or not the one that fixed.engine.json is about'):
        read_graphs(path)
    with pytest.raises(FileNotFoundError, match='no such file'):
        read_graphs(folder / 'nothing.engine')


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino', 'pytorch'])
def test_others_do_not_run_engines(built, spec, name):
    with pytest.raises(ValueError, match=f'backend {name} runs .*fixed.engine'):
        create_backend(name, spec, 'cpu', 'float32', built / 'fixed.engine')


@pytest.mark.parametrize(('arguments', 'complaint'), [
    (['fixed.engine'], 'is an engine already; expected the .onnx that hybrid_seg export wrote'),
    (['fixed.onnx', '--output', 'robot.plan'], '--output: expected a file that ends with .engine, got robot.plan'),
    (['fixed.onnx', '--compute-capability', '87'], 'cannot build for compute capability 87; legal are 75, 80'),
    (['fixed.onnx', '--compute-capability', '86', 'current'], 'expected numbers or current, not both'),
    (['fixed.onnx', '--device', 'cuda:99'], "device 'cuda"),
    (['fixed.onnx', '--device', 'cpu'], "unknown device 'cpu'; legal are cuda, cuda:N"),
    (['fixed.onnx', '--workspace-mb', '0'], 'workspace: expected at least 1 MB, got 0'),
    (['nothing.onnx'], 'nothing.onnx: no such file'),
    (['no_graph.onnx'], 'expected an ONNX file that hybrid_seg export wrote'),
])  # fmt: skip
def test_what_is_refused(exported, tmp_path, monkeypatch, capsys, arguments, complaint):
    if arguments[1:2] == ['--compute-capability']:
        rtx_library()
    for path in exported.glob('fixed.*onnx'):
        shutil.copy(path, tmp_path)
    (tmp_path / 'no_graph.onnx').write_text('words')
    monkeypatch.chdir(tmp_path)
    assert build(*arguments) == 1
    assert complaint in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {'fixed.onnx', 'fixed.policy.onnx', 'no_graph.onnx'}
