"""`auto`: of backend, device and precision, what the caller leaves open becomes what is fastest on this machine."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Optional

from hybrid_seg_ros.inference.backends import AUTO, check_choice, exported_precision
from hybrid_seg_ros.inference.backends.tensorrt.cuda import count_gpus
from hybrid_seg_ros.inference.backends.tensorrt.engine_file import ENGINE_SUFFIX
from hybrid_seg_ros.process_memory import processor_has_bfloat16

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """What runs a network, where, and in which number format."""

    backend: str
    device: str
    precision: str

    def __str__(self) -> str:
        return f'{self.backend} in {self.precision} on {self.device}'


FASTEST_FIRST = tuple(Placement(*words.split()) for words in (
    'tensorrt cuda float16', 'pytorch cuda float16', 'onnxruntime cuda float16', 'onnxruntime tensorrt float16',
    'tensorrt cuda float32', 'pytorch cuda bfloat16', 'pytorch cuda float32', 'onnxruntime cuda float32',
    'onnxruntime tensorrt float32', 'openvino cpu bfloat16', 'onnxruntime cpu float32', 'openvino cpu float32',
    'pytorch cpu float32', 'pytorch cpu bfloat16', 'onnxruntime cpu float16',
))  # fmt: skip
"""All there is. The order on CPUs was measured (docs/benchmark.md); that on GPUs is a guess, as none was at hand."""

_LIBRARIES = {'pytorch': ('torch',), 'onnxruntime': ('onnxruntime', 'onnx'), 'openvino': ('openvino', 'onnx'),
              'tensorrt': ('onnx', 'cuda.bindings')}  # fmt: skip


def choose_placement(
    backend: str, device: str, precision: str, graph: Optional[Path] = None, graph_precision: Optional[str] = None
) -> Placement:
    """Put what is fastest here in the place of each `auto`, and log what it is and why; nothing else is changed.

    A `graph` that is to be run, and the precision that it was exported in, narrow the choice. Raises ValueError for
    what is not legal or cannot be had here, ModuleNotFoundError where a library is missing.
    """
    check_choice(backend, device, precision, also=(AUTO,))
    if AUTO not in (backend, device, precision):
        return Placement(backend, device, precision)
    kinds = ('cuda', 'cpu') if device == AUTO else (device.partition(':')[0],)
    candidates = [
        each for each in FASTEST_FIRST
        if backend in (AUTO, each.backend) and each.device in kinds and precision in (AUTO, each.precision)
        and _runs_graph(each, graph, graph_precision if precision == AUTO else None)
    ]  # fmt: skip
    asked = f'backend {backend}, device {device}, precision {precision}' + (f', graph {graph}' if graph else '')
    if not candidates:
        raise ValueError(f'{asked}: nothing runs that; expected a combination as in docs/deployment.md')
    passed_over: dict[str, dict[str, None]] = {}
    error: Exception = ValueError()
    for each in candidates:
        try:
            _check_here(each)
        except (ValueError, ModuleNotFoundError) as problem:
            error = problem
            is_precision = each.device == 'cpu' and isinstance(problem, ValueError)
            name = str(each) if is_precision else f'{each.backend} on {each.device}'
            passed_over.setdefault(str(problem), {})[name] = None
            continue
        taken = Placement(each.backend, device if device != AUTO else each.device, each.precision)
        log.info('%s is taken, the fastest here%s', taken, f'; not {_list(passed_over)}' if passed_over else '')
        return taken
    raise type(error)(f'{asked}: cannot be had here: {_list(passed_over)}')


def _list(passed_over: dict[str, dict[str, None]]) -> str:
    return '; '.join(f'{", ".join(names)}: {reason}' for reason, names in passed_over.items())


def _runs_graph(placement: Placement, graph: Optional[Path], graph_precision: Optional[str]) -> bool:
    if graph is None:
        return True
    if placement.backend == 'pytorch' or (graph.suffix == ENGINE_SUFFIX and placement.backend != 'tensorrt'):
        return False
    return graph_precision in (None, exported_precision(placement.precision))


def _check_here(placement: Placement) -> None:
    """Raise ValueError or ModuleNotFoundError that says why something cannot be had on this machine."""
    if placement.device != 'cpu' and not count_gpus():
        raise ValueError('no NVIDIA GPU, or no driver for one, is here')
    if placement.backend == 'tensorrt':
        from hybrid_seg_ros.inference.backends.tensorrt.library import load_tensorrt

        load_tensorrt()
    missing = [name.replace('.', '-') for name in _LIBRARIES[placement.backend] if not _is_installed(name)]
    if missing:
        raise ModuleNotFoundError(f'{", ".join(missing)} not installed')
    if placement.backend == 'pytorch' and placement.device == 'cuda':
        from hybrid_seg_ros.inference.backends.torch_backend import torch_device

        torch_device('cuda')
    if placement.backend == 'onnxruntime' and placement.device != 'cpu':
        from hybrid_seg_ros.inference.backends.onnx_backend import choose_provider

        choose_provider(placement.device)
    if placement.backend == 'openvino' and placement.precision == 'bfloat16':
        _check_bfloat16()


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


def _check_bfloat16() -> None:
    """Raise ValueError unless the processor has instructions for bfloat16, and OpenVINO uses them.

    Without the flags OpenVINO, which takes a while to load, is not asked.
    """
    if not processor_has_bfloat16():
        raise ValueError('this processor has no instructions for bfloat16 (AVX-512 BF16, AMX)')
    from hybrid_seg_ros.inference.backends.openvino_backend import check_bfloat16

    check_bfloat16()
