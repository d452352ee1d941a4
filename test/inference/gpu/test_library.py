"""Which TensorRT is taken, and how the versions are told apart that are not installed here."""

import enum
import logging
import sys
from types import SimpleNamespace

import pytest
from rtx_library import rtx_library
from tiny_model import tiny_spec

from hybrid_seg_ros.inference.backends.graph_info import GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.tensorrt.engine_build import BuildOptions, build_plan, builder_flags
from hybrid_seg_ros.inference.backends.tensorrt.library import TensorRt, find_tensorrt, load_tensorrt
from hybrid_seg_ros.model_spec import Variant


def installed(monkeypatch, tmp_path, **sources):
    """Put modules of these sources where Python looks first."""
    for name in ('trt_a', 'trt_b'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name, source in sources.items():
        (tmp_path / f'{name}.py').write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))


LOGGER = 'class ILogger:\n    pass\n'


@pytest.mark.parametrize(('sources', 'flavour', 'version'), [
    ({'trt_a': f'__version__ = "8.6.1.6"\n{LOGGER}'}, 'tensorrt', '8.6.1.6'),
    ({'trt_a': f'__version__ = "10.3.0"\n{LOGGER}', 'trt_b': 'nonsense'}, 'tensorrt', '10.3.0'),
    ({'trt_b': f'__version__ = "1.7.1.116"\n{LOGGER}'}, 'tensorrt_rtx', '1.7.1.116'),
])  # fmt: skip
def test_the_first_that_is_installed(monkeypatch, tmp_path, sources, flavour, version):
    installed(monkeypatch, tmp_path, **sources)
    library = find_tensorrt({'trt_a': 'tensorrt', 'trt_b': 'tensorrt_rtx'})
    assert (library.flavour, library.version, library.name) == (flavour, version, f'{flavour} {version}')


@pytest.mark.parametrize(('sources', 'complaint'), [
    ({}, 'no TensorRT is installed, tried trt_a, trt_b; expected the tensorrt of JetPack or of `pip install tensorrt`'),
    ({'trt_a': f'__version__ = "8.5.3"\n{LOGGER}'}, 'tensorrt 8.5.3 is too old; expected 8.6 or newer'),
    ({'trt_a': 'import trt_libs_missing'}, 'trt_a is installed, but not whole: No module named .trt_libs_missing'),
    ({'trt_a': 'raise ImportError("libnvinfer.so.10: not found")'}, 'cannot be loaded: libnvinfer.so.10: not found'),
])  # fmt: skip
def test_what_is_missing_is_said(monkeypatch, tmp_path, sources, complaint):
    installed(monkeypatch, tmp_path, **sources)
    with pytest.raises(ModuleNotFoundError, match=complaint):
        find_tensorrt({'trt_a': 'tensorrt', 'trt_b': 'tensorrt_rtx'})


@pytest.mark.parametrize(('creation', 'network_flags', 'half'), [
    (['EXPLICIT_BATCH'], 0b1, ['FP16']),  # 8.6
    (['EXPLICIT_BATCH', 'STRONGLY_TYPED'], 0b11, []),  # 10
    (['STRONGLY_TYPED'], 0b1, []),  # RTX, and 11
], ids=['8.6', '10', 'rtx'])  # fmt: skip
def test_flags_of_the_versions(creation, network_flags, half):
    module = SimpleNamespace(NetworkDefinitionCreationFlag=enum.IntEnum('Creation', creation, start=0))
    library = TensorRt(module, 'tensorrt', '10.0', None)
    assert library.network_flags == network_flags
    assert builder_flags(library, 'float16') == half and builder_flags(library, 'float32') == []
    assert library.compute_capabilities == ()


def no_builder(logger):
    """What the bindings of TensorRT proper do where there is no GPU."""
    logger.log(SimpleNamespace(name='ERROR'), 'CUDA initialization failure with error: 35')
    raise TypeError('pybind11::init(): factory function returned nullptr')


def test_tensorrt_proper_builds_for_its_own_gpu_alone(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, trt_a=f'__version__ = "10.3.0"\n{LOGGER}')
    library = find_tensorrt({'trt_a': 'tensorrt'})
    library.module.Builder = no_builder
    info = GraphInfo.describe(tiny_spec(), Variant(), tiny_spec().budget, (96, 128))
    with pytest.raises(ValueError, match='tensorrt 10.3.0 cannot build for compute capability 89; legal are none but'):
        build_plan(library, tmp_path / 'm.onnx', info, BuildOptions((89,)))
    with pytest.raises(GraphError, match='m.onnx: tensorrt 10.3.0 cannot build here: CUDA initialization failure'):
        build_plan(library, tmp_path / 'm.onnx', info)


def test_the_one_that_is_here():
    library = rtx_library()
    assert library.flavour == 'tensorrt_rtx' and library.strongly_typed
    assert {80, 86, 89, 120} <= set(library.compute_capabilities)
    assert load_tensorrt() is load_tensorrt()


def test_the_log_is_passed_on_or_collected(monkeypatch, tmp_path, caplog):
    installed(monkeypatch, tmp_path, trt_a=f'__version__ = "10.0"\n{LOGGER}')
    library = find_tensorrt({'trt_a': 'tensorrt'})
    severities = enum.Enum('Severity', ['INTERNAL_ERROR', 'ERROR', 'WARNING', 'INFO', 'VERBOSE'])
    with library.collected_log() as lines:
        for severity in severities:
            library.logger.log(severity, f'{severity.name} said')
    assert [(line.severity, line.is_error) for line in lines] == [
        ('INTERNAL_ERROR', True), ('ERROR', True), ('WARNING', False), ('INFO', False),
    ]  # fmt: skip
    assert not caplog.records
    with caplog.at_level(logging.DEBUG):
        for severity in severities:
            library.logger.log(severity, f'{severity.name} said')
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ('ERROR', 'INTERNAL_ERROR said'), ('ERROR', 'ERROR said'), ('WARNING', 'WARNING said'), ('DEBUG', 'INFO said'),
    ]  # fmt: skip
