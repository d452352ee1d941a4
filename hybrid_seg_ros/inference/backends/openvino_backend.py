"""OpenVINO: on the CPU, in float32, or in bfloat16 where the processor computes with it (AMX, AVX-512 BF16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino

from hybrid_seg_ros.inference.backends.base import split_device, thread_limit
from hybrid_seg_ros.inference.backends.graph_backend import GraphBackend
from hybrid_seg_ros.inference.backends.graph_info import GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import GraphSource

PRECISIONS = {'float32': 'f32', 'bfloat16': 'bf16'}


def create_openvino_backend(source: GraphSource, device: str, precision: str) -> GraphBackend:
    """Return a backend on the CPU. Raises ValueError for another device, or a precision that the CPU does not have."""
    split_device(device, ('cpu',))
    if precision == 'bfloat16':
        check_bfloat16()
    core = openvino.Core()
    settings = {'INFERENCE_PRECISION_HINT': PRECISIONS[precision], 'PERFORMANCE_HINT': 'LATENCY'}
    if thread_limit():
        settings['INFERENCE_NUM_THREADS'] = str(thread_limit())

    def open_graph(path: Path, info: GraphInfo, part: str) -> OpenVinoRunner:
        return OpenVinoRunner(core, path, settings)

    return GraphBackend(source, open_graph, 'cpu')


def check_bfloat16() -> None:
    """Raise ValueError where OpenVINO does not compute in bfloat16."""
    if 'BF16' not in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        raise ValueError('precision bfloat16: this processor does not compute with it; expected float32')


class OpenVinoRunner:
    """One compiled graph."""

    def __init__(self, core: openvino.Core, path: Path, settings: dict[str, str]) -> None:
        try:
            self._compiled = core.compile_model(str(path), 'CPU', settings)
        except RuntimeError as error:
            raise GraphError(f'{path}: OpenVINO cannot load it: {error}') from error
        self._request = self._compiled.create_infer_request()
        self.input_names = tuple(value.get_any_name() for value in self._compiled.inputs)
        self._output_names = [value.get_names() for value in self._compiled.outputs]  # a tensor may have several

    def run(self, feeds: Mapping[str, Any], fetch: Sequence[str]) -> dict[str, Any]:
        """Run the graph."""
        self._request.infer({name: feeds[name] for name in self.input_names}, share_inputs=True)
        outputs = {}
        for index, names in enumerate(self._output_names):
            # copied: the request writes into the same memory the next time
            outputs.update(dict.fromkeys(names, self._request.get_output_tensor(index).data.copy()))
        return outputs

    def close(self) -> None:
        """Free it."""
        self._request = self._compiled = None
