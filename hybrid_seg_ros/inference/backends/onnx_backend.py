"""ONNX Runtime: on the CPU, or on an NVIDIA GPU through its CUDA or TensorRT provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hybrid_seg_ros.inference.backends.base import split_device, thread_limit
from hybrid_seg_ros.inference.backends.graph_backend import GraphBackend
from hybrid_seg_ros.inference.backends.graph_info import GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import GraphSource

PRECISIONS = ('float32', 'float16')
PROVIDERS = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider', 'tensorrt': 'TensorrtExecutionProvider'}
_ERRORS_ONLY = 3


def create_onnx_backend(source: GraphSource, device: str) -> GraphBackend:
    """Return a backend on `device`: cpu, cuda[:N], or tensorrt[:N] for the TensorRT provider on GPU N.

    The provider is named, never guessed. Raises ValueError for a device that this ONNX Runtime has no provider for.
    """
    provider, options = choose_provider(device)

    def open_graph(path: Path, info: GraphInfo, part: str) -> OnnxRunner:
        return OnnxRunner(path, provider, options)

    return GraphBackend(source, open_graph, name_device(device))


def name_device(device: str) -> str:
    """Return the device for people to read, with the GPU's index."""
    kind, index = split_device(device, PROVIDERS)
    return kind if kind == 'cpu' else f'{kind}:{index}'


def choose_provider(device: str) -> tuple[str, dict[str, str]]:
    """Return the provider of a device, and its options. Raises ValueError where this ONNX Runtime does not have it."""
    kind, index = split_device(device, PROVIDERS)
    provider = PROVIDERS[kind]
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise ValueError(f'device {device!r} needs the {provider} of ONNX Runtime; '
                         f'this build ({onnxruntime.__version__}) has {", ".join(available)}')  # fmt: skip
    return provider, {} if kind == 'cpu' else {'device_id': str(index)}


def open_session(path: Path, device: str) -> onnxruntime.InferenceSession:
    """Open any graph with ONNX Runtime's own settings; only the number of threads is the user's.

    Raises ValueError for a device that cannot be had, and GraphError for a file that is no graph.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = thread_limit()
    return _open(path, settings, *choose_provider(device))


def _open(
    path: Path, settings: onnxruntime.SessionOptions, provider: str, options: dict[str, str]
) -> onnxruntime.InferenceSession:  # fmt: skip
    """Open a graph with a provider, and with no other. Raises GraphError."""
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=[(provider, options)])
    except Exception as error:  # its exceptions have no common class but this
        raise GraphError(f'{path}: ONNX Runtime cannot load it with the {provider}: {error}') from error
    session.disable_fallback()  # which is silent
    active = session.get_providers()[0]
    if active != provider:
        raise GraphError(f'{path}: expected to run with the {provider}, got {active}')
    return session


class OnnxRunner:
    """One graph in an ONNX Runtime session. On a GPU, outputs that are not fetched stay there."""

    def __init__(self, path: Path, provider: str, options: dict[str, str]) -> None:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _ERRORS_ONLY
        settings.intra_op_num_threads = thread_limit()
        # Threads that spin while they wait take the cores from those that are waited for: with both of two cores busy
        # elsewhere a frame took twice as long.
        settings.add_session_config_entry('session.intra_op.allow_spinning', '0')
        self._session = _open(path, settings, provider, options)
        self._device = None if provider == PROVIDERS['cpu'] else ('cuda', int(options['device_id']))
        self.input_names = tuple(value.name for value in self._session.get_inputs())
        self._output_names = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Any], fetch: Sequence[str]) -> dict[str, Any]:
        """Run the graph."""
        if self._device is None:
            feeds = {name: feeds[name] for name in self.input_names}
            return dict(zip(self._output_names, self._session.run(self._output_names, feeds)))
        binding = self._session.io_binding()
        for name in self.input_names:
            value = feeds[name]
            if isinstance(value, np.ndarray):
                value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), *self._device)
            binding.bind_ortvalue_input(name, value)
        for name in self._output_names:
            binding.bind_output(name, *(('cpu', 0) if name in fetch else self._device))
        self._session.run_with_iobinding(binding)
        outputs = dict(zip(self._output_names, binding.get_outputs()))
        return {name: value.numpy() if name in fetch else value for name, value in outputs.items()}

    def close(self) -> None:
        """Free the session."""
        self._session = None
