"""Engines are kept, and built again when they are damaged or somebody else's; engine files say what they are."""

import dataclasses
import json

import pytest
from rtx_library import rtx_library
from tiny_model import tiny_spec

from hybrid_seg_ros.inference.backends.file_cache import is_intact
from hybrid_seg_ros.inference.backends.graph_info import TAIL, GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import CachedGraphs
from hybrid_seg_ros.inference.backends.tensorrt import backend
from hybrid_seg_ros.inference.backends.tensorrt.backend import EngineCache, open_engine_file
from hybrid_seg_ros.inference.backends.tensorrt.cuda import GpuModel
from hybrid_seg_ros.inference.backends.tensorrt.engine_build import BuildOptions, Plan
from hybrid_seg_ros.inference.backends.tensorrt.engine_file import EngineInfo, read_engine_info, sidecar, write_engines
from hybrid_seg_ros.model_spec import Variant

GPU = GpuModel('A GPU', 89)
FOR_IT = BuildOptions((89,))


@dataclasses.dataclass(frozen=True)
class Library:
    """All that is asked of a TensorRT that need not be here."""

    name: str


HERE = Library('tensorrt 10.3.0')


@pytest.fixture
def graph(spec, cache):
    """A small graph: its path, and what it is."""
    graphs = CachedGraphs(spec, 'float32', cache).find(Variant.parse('hybrid@6+8'), spec.budget, 1, (96, 128))
    return graphs.files[TAIL], graphs.info


@pytest.fixture
def builds(monkeypatch):
    """Let engines be the graphs, and list what is built."""
    built = []

    def build_plan(library, path, info, options):
        built.append(path)
        if not path.read_bytes():
            raise GraphError('cannot read it')
        return Plan(path.read_bytes(), ())

    monkeypatch.setattr(backend, 'build_plan', build_plan)
    return built


def test_it_is_built_once(graph, tmp_path, caplog):
    library, (path, info) = rtx_library(), graph
    caplog.set_level('INFO')
    engine = EngineCache(library, GPU, tmp_path, FOR_IT).find(path, info, TAIL)
    assert engine.is_relative_to(tmp_path / 'engines') and is_intact(engine.parent)
    assert f'for A GPU with {library.name}; takes minutes, once' in caplog.text
    assert str(tmp_path / 'engines') not in caplog.text, 'the caller chose it'
    about = read_engine_info(engine)
    assert about.graph == info and about.part == TAIL and about.tensorrt == library.name
    assert about.compute_capabilities == (89,) and about.gpu == 'A GPU'
    caplog.clear()
    assert EngineCache(library, GPU, tmp_path, FOR_IT).find(path, info, TAIL) == engine
    assert not caplog.records


@pytest.mark.parametrize('damage', [lambda engine: engine.write_bytes(b'?'), lambda engine: sidecar(engine).unlink()],
                         ids=['altered', 'no sidecar'])  # fmt: skip
def test_a_damaged_engine_is_built_again(graph, builds, tmp_path, damage):
    cache = EngineCache(HERE, GPU, tmp_path, FOR_IT)
    engine = cache.find(*graph, TAIL)
    damage(engine)
    assert cache.find(*graph, TAIL) == engine and len(builds) == 2
    assert is_intact(engine.parent) and read_engine_info(engine).part == TAIL
    assert len(list((tmp_path / 'engines').iterdir())) == 1, 'nothing half made is left'


def test_others_engines_are_others(graph, builds, tmp_path):
    path, info = graph
    copy = tmp_path / 'other.onnx'
    copy.write_bytes(path.read_bytes() + b'\x72\x00')  # an empty metadata entry: the same graph, another file
    engines = {EngineCache(library, gpu, tmp_path, options).find(file, info, TAIL) for library, gpu, options, file in [
        (HERE, GPU, FOR_IT, path),
        (HERE, GpuModel('B GPU', 89), FOR_IT, path),
        (HERE, GpuModel('A GPU', 86), FOR_IT, path),
        (Library('tensorrt 9'), GPU, FOR_IT, path),
        (HERE, GPU, BuildOptions((89,), workspace_mb=64), path),
        (HERE, GPU, FOR_IT, copy),
    ]}  # fmt: skip
    assert len(engines) == len(builds) == 6


def test_an_unwritable_folder_is_named(graph, tmp_path):
    in_the_way = tmp_path / 'file'
    in_the_way.write_text('')
    cache = EngineCache(HERE, GPU, in_the_way / 'cache', FOR_IT)
    with pytest.raises(OSError, match=f'cannot write the cache folder {in_the_way}/cache/engines .*HYBRID_SEG_CACHE_D'):
        cache.find(*graph, TAIL)


def test_what_cannot_be_built_leaves_nothing(graph, builds, tmp_path):
    path = tmp_path / 'bad.onnx'
    path.write_bytes(b'')
    with pytest.raises(GraphError, match='cannot read it'):
        EngineCache(HERE, GPU, tmp_path, FOR_IT).find(path, graph[1], TAIL)
    assert list((tmp_path / 'engines').iterdir()) == []


def test_an_engine_that_does_not_load_is_built_once_more(graph, builds, tmp_path, caplog):
    cache = EngineCache(HERE, GPU, tmp_path, FOR_IT)
    assert cache.open(*graph, TAIL, lambda path: 'loaded' if len(builds) > 1 else None) == 'loaded'
    assert len(builds) == 2 and 'does not take the engine in' in caplog.text
    with pytest.raises(GraphError, match='does not load the engine that it has just built'):
        cache.open(*graph, TAIL, lambda path: None)


@pytest.fixture
def engine(tmp_path):
    """An engine file of no matter what."""
    info = GraphInfo.describe(tiny_spec(), Variant(), tiny_spec().budget, (96, 128))
    path = tmp_path / 'm.engine'
    write_engines({path: (b'the engine', EngineInfo(info, 'whole', '0' * 64, 'tensorrt 10.3.0', (87,), 'Orin'))})
    return path


@pytest.mark.parametrize(('tensorrt', 'gpu', 'complaint'), [
    ('8.6.1', GpuModel('Orin', 87), r'm.engine: was built with tensorrt 10.3.0, expected tensorrt 8.6.1, which is'),
    ('10.3.0', GpuModel('A GPU', 89), r'm.engine: was built for compute capability 87, expected 89 \(A GPU\); build'),
])  # fmt: skip
def test_an_engine_for_another_robot_is_refused(engine, tensorrt, gpu, complaint):
    with pytest.raises(GraphError, match=complaint):
        open_engine_file(engine, Library(f'tensorrt {tensorrt}'), gpu, lambda path: path.read_bytes())


def test_an_engine_file_is_loaded(engine, caplog):
    assert open_engine_file(engine, HERE, GpuModel('Orin', 87), lambda path: path.read_bytes()) == b'the engine'
    assert not caplog.records
    assert open_engine_file(engine, HERE, GpuModel('Orin Nano', 87), lambda path: path.read_bytes())
    assert 'was built on Orin and runs on Orin Nano: it may be slower' in caplog.text
    with pytest.raises(GraphError, match='m.engine: tensorrt 10.3.0 does not load it'):
        open_engine_file(engine, HERE, GpuModel('Orin', 87), lambda path: None)


@pytest.mark.parametrize(('damage', 'error', 'complaint'), [
    (lambda path: path.write_bytes(b'the eng'), GraphError, 'm.engine: is damaged, or not the one that m.engine.json'),
    (lambda path: path.unlink(), FileNotFoundError, 'm.engine: no such file'),
    (lambda path: sidecar(path).unlink(), FileNotFoundError, 'expected m.engine.json beside it'),
    (lambda path: sidecar(path).write_text('{'), GraphError, 'm.engine.json: expected what hybrid_seg build-engine'),
    (lambda path: sidecar(path).write_text('{}'), GraphError, 'm.engine.json: expected what hybrid_seg build-engine'),
    (lambda path: sidecar(path).write_text('[]'), GraphError, 'm.engine.json: expected what hybrid_seg build-engine'),
    (lambda path: add_field(sidecar(path)), GraphError, 'm.engine.json: expected what hybrid_seg build-engine'),
], ids=['truncated', 'gone', 'no sidecar', 'no JSON', 'empty', 'list', 'unknown field'])  # fmt: skip
def test_a_damaged_engine_file(engine, damage, error, complaint):
    damage(engine)
    with pytest.raises(error, match=complaint):
        read_engine_info(engine)


def add_field(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), 'colour': 'blue'}))


def test_engines_are_written_all_or_none(tmp_path, engine):
    info = read_engine_info(engine)
    with pytest.raises(OSError):
        write_engines({tmp_path / 'a.engine': (b'1', info), engine / 'below a file': (b'2', info)})
    assert not (tmp_path / 'a.engine').exists() and not list(tmp_path.rglob('*.partial'))
