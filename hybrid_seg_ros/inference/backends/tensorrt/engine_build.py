"""ONNX graph to TensorRT engine: parse, say which axes are dynamic and how long, build."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.inference.backends.graph_info import GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.tensorrt.library import LogLine, TensorRt

log = logging.getLogger(__name__)

USUAL_KEEP = 0.6
"""The share of the tokens that usually stays: what engines of dynamic length are optimised for."""

PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    `compute_capabilities` of the GPUs it is for, 89 for 8.9; empty for the GPU of this machine. `workspace_mb`: the
    most memory that a layer may use besides its tensors.
    """

    compute_capabilities: tuple[int, ...] = ()
    workspace_mb: int = 1024

    def __post_init__(self) -> None:
        if self.workspace_mb < 1:
            raise ValueError(f'workspace: expected at least 1 MB, got {self.workspace_mb}')


DEFAULT_BUILD = BuildOptions()


@dataclass(frozen=True)
class ParsedGraph:
    """A graph as TensorRT understands it; `builder` and `parser` own what `network` refers to."""

    path: Path
    builder: Any
    network: Any
    parser: Any

    @property
    def inputs(self) -> list[Any]:
        """The network's input tensors."""
        return [self.network.get_input(index) for index in range(self.network.num_inputs)]

    @property
    def outputs(self) -> list[Any]:
        """The network's output tensors."""
        return [self.network.get_output(index) for index in range(self.network.num_outputs)]


@dataclass(frozen=True)
class Plan:
    """A serialised engine, and what TensorRT logged while it made it."""

    data: bytes
    log: tuple[LogLine, ...]


def build_plan(library: TensorRt, path: Path, info: GraphInfo, options: BuildOptions = DEFAULT_BUILD) -> Plan:
    """Build an engine of the ONNX file `path`, a part of the network that `info` describes.

    Raises GraphError with TensorRT's own words, and ValueError for a compute capability that it does not build for.
    """
    _check_compute_capabilities(library, options.compute_capabilities)
    with library.collected_log() as lines:
        graph = parse_graph(library, path, lines)
        data = build_parsed(library, graph, info, options, lines)
    return Plan(data, tuple(lines))


def parse_graph(library: TensorRt, path: Path, lines: Sequence[LogLine] = ()) -> ParsedGraph:
    """Read an ONNX file. Raises GraphError that lists each node that TensorRT does not take."""
    module = library.module
    try:
        builder = module.Builder(library.logger)
    except TypeError as error:  # what its bindings raise for a null pointer: TensorRT proper needs a GPU here
        raise GraphError(f'{path}: {library.name} cannot build here: {_errors(lines)}') from error
    network = builder.create_network(library.network_flags)
    parser = module.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(path)) or not network.num_outputs:  # of what is no ONNX file it says nothing
        problems = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
        raise GraphError(f'{path}: {library.name} cannot read it: {"; ".join(problems) or _errors(lines)}')
    return ParsedGraph(path, builder, network, parser)


def build_parsed(
    library: TensorRt, graph: ParsedGraph, info: GraphInfo, options: BuildOptions, lines: Sequence[LogLine] = ()
) -> bytes:  # fmt: skip
    """Build what parse_graph has read, and return the serialised engine."""
    module = library.module
    config = graph.builder.create_builder_config()
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    _set_compute_capabilities(library, config, options.compute_capabilities)
    if hasattr(module.BuilderFlag, 'TF32'):
        config.clear_flag(module.BuilderFlag.TF32)  # float32 is what was asked for
    for name in builder_flags(library, info.precision):
        config.set_flag(getattr(module.BuilderFlag, name))
    _add_profile(graph, config, info)
    with _told_progress(library, config, graph.path.name):
        plan = graph.builder.build_serialized_network(graph.network, config)
    if plan is None:
        raise GraphError(f'{graph.path}: {library.name} cannot build an engine of it: {_errors(lines)}')
    return bytes(plan)


def builder_flags(library: TensorRt, precision: str) -> list[str]:
    """Name the flags to build with: none where types are those of the ONNX file."""
    return ['FP16'] if precision == 'float16' and not library.strongly_typed else []


def dynamic_shapes(graph: ParsedGraph, info: GraphInfo) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the least, usual and largest shape of each input that has a dynamic axis.

    Such axes count tokens that have stayed, so the tokens that enter are the most there can be; `tokens` has the prefix
    tokens in front.
    """
    usual = max(1, round(USUAL_KEEP * info.tokens))
    shapes = {tensor.name: tuple(tensor.shape) for tensor in graph.inputs}
    return {
        name: tuple(
            tuple(count + (info.num_prefix_tokens if name == 'tokens' else 0) if side < 0 else side for side in shape)
            for count in (1, usual, info.tokens)
        )
        for name, shape in shapes.items()
        if min(shape) < 0
    }


def _add_profile(graph: ParsedGraph, config: Any, info: GraphInfo) -> None:
    shapes = dynamic_shapes(graph, info)
    if not shapes:
        return
    profile = graph.builder.create_optimization_profile()
    for name, bounds in shapes.items():
        profile.set_shape(name, *bounds)
    if config.add_optimization_profile(profile) < 0:
        raise GraphError(f'{graph.path}: TensorRT refuses the shapes {shapes}')


def _check_compute_capabilities(library: TensorRt, wanted: Sequence[int]) -> None:
    unknown = [capability for capability in wanted if capability not in library.compute_capabilities]
    if unknown:
        legal = ', '.join(map(str, library.compute_capabilities)) or 'none but current, the GPU of this machine'
        raise ValueError(f'{library.name} cannot build for compute capability {", ".join(map(str, unknown))}; '
                         f'legal are {legal}')  # fmt: skip


def _set_compute_capabilities(library: TensorRt, config: Any, wanted: Sequence[int]) -> None:
    if not library.compute_capabilities:
        return  # it knows but the GPU that it runs on
    names = [f'SM{capability}' for capability in wanted] or ['CURRENT']
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(library.module.ComputeCapability, name), index)


def _describe(error: Any) -> str:
    """Name the node (8.6 knows its number alone) and what is wrong with it."""
    name = getattr(error, 'node_name', None)
    node = f'node {error.node()}' + (f' {name()} ({error.node_operator()})' if name is not None else '')
    return f'{node}: {error.desc()}'


def _errors(lines: Sequence[LogLine]) -> str:
    return '; '.join(line.text for line in lines if line.is_error) or 'it does not say why'


@contextmanager
def _told_progress(library: TensorRt, config: Any, name: str) -> Iterator[None]:
    """Log the end, and before it, where TensorRT tells it (10 and newer), every few seconds how far it has come."""
    start_s = time.monotonic()
    if hasattr(library.module, 'IProgressMonitor') and hasattr(config, 'progress_monitor'):
        monitor = _make_monitor(library.module, name, start_s)  # TensorRT does not keep it alive
        config.progress_monitor = monitor
    yield
    log.info('engine of %s ready after %.0f s', name, time.monotonic() - start_s)


def _make_monitor(module: Any, name: str, start_s: float) -> Any:
    class Monitor(module.IProgressMonitor):
        """Notes what TensorRT tells, from whichever thread."""

        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.last_s = start_s
            self.open: dict[str, tuple[int, int]] = {}  # of each phase the steps that are done, and all

        def phase_start(self, phase: str, parent: Optional[str], steps: int) -> None:
            self.open[phase] = (0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            self.open[phase] = (step + 1, self.open.get(phase, (0, step + 1))[1])
            now_s = time.monotonic()
            if now_s - self.last_s >= PROGRESS_EVERY_S:
                self.last_s = now_s
                phases = ', '.join(f'{each.lower()} {done}/{steps}' for each, (done, steps) in list(self.open.items()))
                log.info('building an engine of %s, %.0f s: %s', name, now_s - start_s, phases)
            return True  # go on

        def phase_finish(self, phase: str) -> None:
            self.open.pop(phase, None)

    return Monitor()
