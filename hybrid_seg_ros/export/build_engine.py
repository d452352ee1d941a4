"""`hybrid_seg build-engine`: TensorRT engines of an exported network, for this GPU or others."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from hybrid_seg_ros.inference.backends.base import split_device
from hybrid_seg_ros.inference.backends.graph_info import HEAD, GraphInfo
from hybrid_seg_ros.inference.backends.graph_source import read_graphs
from hybrid_seg_ros.inference.backends.tensorrt.engine_build import DEFAULT_BUILD, BuildOptions, build_plan
from hybrid_seg_ros.inference.backends.tensorrt.engine_file import ENGINE_SUFFIX, EngineInfo, write_engines
from hybrid_seg_ros.inference.backends.tensorrt.library import TensorRt, load_tensorrt
from hybrid_seg_ros.model_spec import sha256_of

log = logging.getLogger(__name__)

CURRENT = 'current'


def build_engines(
    graph: Path, output: Optional[Path] = None, options: BuildOptions = DEFAULT_BUILD, device: str = 'cuda',
    library: Optional[TensorRt] = None,
) -> list[Path]:  # fmt: skip
    """Build an engine of each part of an exported network, `output` and its siblings; return their paths.

    Default: beside the ONNX files. Each has a JSON file beside it that says what it is. All are written or none.
    Without compute capabilities in `options` they are for the GPU `device`. Raises GraphError for what TensorRT does
    not take, ValueError for a GPU that it cannot build for, FileNotFoundError, ModuleNotFoundError.
    """
    if graph.suffix == ENGINE_SUFFIX:
        raise ValueError(f'{graph}: is an engine already; expected the .onnx that hybrid_seg export wrote')
    if output is not None and output.suffix != ENGINE_SUFFIX:
        raise ValueError(f'--output: expected a file that ends with {ENGINE_SUFFIX}, got {output}')
    graphs = read_graphs(graph)
    output = output or _beside(graph, graphs.info)
    library = library or load_tensorrt()
    capabilities, gpu_name = options.compute_capabilities, None
    if not capabilities:
        from hybrid_seg_ros.inference.backends.tensorrt.cuda import Gpu

        gpu = Gpu(split_device(device, ('cuda',))[1])
        capabilities, gpu_name = (gpu.model.compute_capability,), gpu.model.name
    built = {}
    for part, path in graphs.files.items():
        log.info('building an engine of %s; this takes seconds to minutes', path.name)
        plan = build_plan(library, path, graphs.info, options)
        info = EngineInfo(graphs.info, part, sha256_of(path), library.name, capabilities, gpu_name)
        built[graphs.info.part_path(output, part)] = (plan.data, info)
    write_engines(built)
    return list(built)


def compute_capabilities(values: Sequence[Union[int, str]]) -> tuple[int, ...]:
    """Read what --compute-capability gives: numbers as 87, or `current`, which is () here."""
    if CURRENT in values:
        if len(values) > 1:
            raise ValueError(f'--compute-capability: expected numbers or {CURRENT}, not both')
        return ()
    return tuple(sorted({int(value) for value in values}))


def _beside(graph: Path, info: GraphInfo) -> Path:
    """Return F.engine for F.onnx, and for F.head.onnx."""
    stem = graph.stem
    if info.by_threshold and stem.endswith(f'.{HEAD}'):
        stem = stem[: -len(HEAD) - 1]
    return graph.with_name(stem + ENGINE_SUFFIX)


def _capability(text: str) -> Union[int, str]:
    return text if text == CURRENT else int(text.replace('.', ''))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('graph', type=Path, help='the .onnx of `hybrid_seg export`; its parts, where it has several')
    parser.add_argument('--output', type=Path, help=f'a {ENGINE_SUFFIX} (default: beside the graph)')
    parser.add_argument('--compute-capability', type=_capability, nargs='+', default=[CURRENT], metavar='N',
                        help='GPUs it is for, as 86 89, or current, the GPU of this machine (default: %(default)s)')
    parser.add_argument('--workspace-mb', type=int, default=DEFAULT_BUILD.workspace_mb,
                        help='memory that a layer may use besides its tensors (default: %(default)s)')
    parser.add_argument('--device', default='cuda', help='cuda or cuda:N, the GPU that is current')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    options = BuildOptions(compute_capabilities(args.compute_capability), args.workspace_mb)
    for path in build_engines(args.graph, args.output, options, args.device):
        print(f'{path}  {path.stat().st_size / 1e6:.1f} MB')
    return 0
