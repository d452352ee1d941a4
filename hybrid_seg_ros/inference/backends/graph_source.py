"""Where a backend's graphs come from: exported when they are first needed, or files that somebody exported."""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Optional, Protocol

import onnx
from google.protobuf.message import DecodeError

from hybrid_seg_ros import network
from hybrid_seg_ros.inference.backends.file_cache import cache_key, cached_folder, default_cache_dir, source_digest
from hybrid_seg_ros.inference.backends.graph_info import HEAD, METADATA_KEY, GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.tensorrt.engine_file import ENGINE_SUFFIX, read_engine_info
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant

log = logging.getLogger(__name__)

_QUANTISED = re.compile('[Qq]uantize|Integer|^Q[A-Z]|^MatMul(NBits|FpQ4|Bnb4)')
"""Operators of ONNX and ONNX Runtime that compute in, or unpack, integers of 4 or 8 bits."""
_WEIGHT_TYPES = {'FLOAT': 'float32', 'FLOAT16': 'float16'}
_INDEX_TYPES = {'INT64', 'INT32', 'BOOL'}


@dataclass(frozen=True)
class Graphs:
    """The graphs of one operating point: a file for each part."""

    info: GraphInfo
    files: dict[str, Path]


class GraphSource(Protocol):
    """Finds the graphs for an operating point."""

    def find(self, variant: Variant, budget: TokenBudget, batch: int, size_hw: tuple[int, int]) -> Graphs:
        """Return the graphs that segment at most `batch` images of `size_hw` at once; raise ValueError if none can."""

    def check(self, variant: Variant, budget: TokenBudget, size_hw: tuple[int, int]) -> None:
        """Raise ValueError if there can be no such graphs; makes none."""


class CachedGraphs:
    """Exports a model's graphs on demand, and keeps them in the cache folder."""

    def __init__(self, spec: ModelSpec, precision: str, cache_dir: Optional[Path] = None) -> None:
        self._spec, self._precision = spec.with_weights_hash(), precision
        self._folder = (cache_dir or default_cache_dir()) / 'graphs'
        self._kept = '' if cache_dir is not None else f'; once, kept in {self._folder}'  # else the caller knows

    def check(self, variant: Variant, budget: TokenBudget, size_hw: tuple[int, int]) -> None:
        """Any operating point of the model can be exported."""
        GraphInfo.describe(self._spec, variant, budget, size_hw, 1, self._precision)

    def find(self, variant: Variant, budget: TokenBudget, batch: int, size_hw: tuple[int, int]) -> Graphs:
        """Return the graphs, exporting them if the cache has none that are intact."""
        spec = self._spec
        info = GraphInfo.describe(spec, variant, budget, size_hw, 1, self._precision)
        # crops differ in number from camera to camera: one graph for one crop, the one that warm_up loads
        if not info.by_threshold and spec.inference == 'whole':
            info = dataclasses.replace(info, batch=batch)
        shape = {key: value for key, value in spec.to_dict().items() if key not in ('classes', 'variant', 'budget')}
        made_by = source_digest(Path(network.__file__).parent, Path(__file__).parent)
        key = cache_key([dataclasses.asdict(info), shape, made_by])

        def make(folder: Path) -> None:
            # PyTorch is loaded only where something must be exported
            if find_spec('torch') is None:
                raise FileNotFoundError(
                    f'no graph of {spec.name}, variant {variant}, {self._precision} is in {self._folder}, and making '
                    'one takes PyTorch, which is not installed: `hybrid_seg export --outputs scores` on a machine that '
                    'has it writes a file for engine_path (node) or --graph (commands)'
                )
            from hybrid_seg_ros.inference.backends.graph_export import export_graphs
            from hybrid_seg_ros.network.checkpoint import load_model

            log.info('exporting %s, variant %s, %s, to ONNX%s', spec.name, variant, self._precision, self._kept)
            export_graphs(load_model(spec), info, folder / 'graph.onnx')

        folder = cached_folder(self._folder / f'{spec.name}-{variant}-{key}', make)
        return Graphs(info, {part: info.part_path(folder / 'graph.onnx', part) for part in info.parts})


class GraphFiles:
    """Graphs that `hybrid_seg export` or `build-engine` wrote: one operating point, one input size, one batch."""

    def __init__(self, path: Path, spec: ModelSpec, precision: str) -> None:
        self._path, self._spec, self._precision = Path(path), spec.with_weights_hash(), precision
        self.graphs = read_graphs(self._path)
        if self.graphs.info.outputs != 'scores':
            raise GraphError(f'{path}: gives a label map; expected class scores: export it with --outputs scores')

    def find(self, variant: Variant, budget: TokenBudget, batch: int, size_hw: tuple[int, int]) -> Graphs:
        """Return the graphs, whose batch is what it is. Raises GraphError if they are for something else."""
        self.check(variant, budget, size_hw)
        return self.graphs

    def check(self, variant: Variant, budget: TokenBudget, size_hw: tuple[int, int]) -> None:
        """Raise GraphError if the graphs are of another model, operating point, precision or size."""
        info = self.graphs.info
        asked = GraphInfo.describe(self._spec, variant, budget, size_hw, info.batch, self._precision)
        other = [
            f'{field.name} {getattr(info, field.name)}, expected {getattr(asked, field.name)}'
            for field in dataclasses.fields(info)
            if getattr(info, field.name) != getattr(asked, field.name)
        ]
        if other:
            raise GraphError(f'{self._path}: was exported for {"; ".join(other)}')


def with_operating_point(spec: ModelSpec, info: GraphInfo) -> ModelSpec:
    """Return `spec` with variant and token budget of exported graphs as its own."""
    budget = dataclasses.replace(spec.budget, keep=info.budget.keep)
    if Variant.parse(info.variant).merges:
        budget = dataclasses.replace(budget, merged_windows=info.merged_windows)
    return dataclasses.replace(spec, variant=Variant.parse(info.variant), budget=budget)


def read_graphs(path: Path) -> Graphs:
    """Read what the graphs of `path` are: F.onnx, or F.head.onnx and its siblings, named by F.onnx or by their head.

    Engines, F.engine or F.head.engine and its siblings, are read likewise.

    Raises FileNotFoundError or GraphError for a missing part, a damaged file, or one that is not ours.
    """
    path = Path(path)
    head = path.with_name(f'{path.stem}.{HEAD}{path.suffix}')
    if path.is_file() and head.is_file():
        raise GraphError(f'{path} and {head.name} are both there, of two exports; expected one: name {head.name}, or '
                         f'delete the one that is not meant')  # fmt: skip
    first = path if path.is_file() or not head.is_file() else head
    info = read_info(first)
    if first.stem.endswith(f'.{HEAD}'):
        path = first.with_name(first.stem[: -len(HEAD) - 1] + first.suffix)
    files = {part: info.part_path(path, part) for part in info.parts}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise FileNotFoundError(f'{first}: expected its other parts beside it, missing {", ".join(missing)}')
    for file in files.values():
        if file != first and read_info(file) != info:
            raise GraphError(f'{file}: is of another export than {first.name}; expected the parts of one')
    return Graphs(info, files)


def read_info(path: Path) -> GraphInfo:
    """Read what an exported ONNX file, or an engine built of one, says about itself.

    Raises FileNotFoundError, or GraphError if it is not ours.
    """
    if path.suffix == ENGINE_SUFFIX:
        return read_engine_info(path).graph
    if not path.is_file():
        raise FileNotFoundError(f'graph {path}: no such file')
    try:
        proto = onnx.load(str(path), load_external_data=False)
        entries = {entry.key: entry.value for entry in proto.metadata_props}
        info = GraphInfo.from_json(entries[METADATA_KEY])
    except (DecodeError, KeyError, ValueError, TypeError) as error:
        raise GraphError(f'{path}: expected an ONNX file that hybrid_seg export wrote, whole ({error})') from error
    return dataclasses.replace(info, precision=computed_precision(proto, path))


def computed_precision(proto: onnx.ModelProto, path: Path) -> str:
    """Return what the operators and weights of a graph say: other tools convert graphs and leave our metadata as it is.

    Raises GraphError for a quantised one, and for one with weights of several types.
    """
    quantised = sorted({node.op_type for node in proto.graph.node if _QUANTISED.search(node.op_type)})
    if quantised:
        raise GraphError(f'{path}: is quantised (int8: {", ".join(quantised)}); expected float32 or float16, as '
                         'hybrid_seg export writes it')  # fmt: skip
    types = {onnx.TensorProto.DataType.Name(weight.data_type) for weight in proto.graph.initializer}
    found = [name for kind, name in _WEIGHT_TYPES.items() if kind in types]
    if len(found) != 1 or types - _WEIGHT_TYPES.keys() - _INDEX_TYPES:
        raise GraphError(f'{path}: has weights of {", ".join(sorted(types)) or "no type"}; expected float32 or float16 '
                         'throughout, as hybrid_seg export writes it')  # fmt: skip
    return found[0]
