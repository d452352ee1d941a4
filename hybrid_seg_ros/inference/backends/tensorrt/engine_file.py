"""TensorRT engine files: F.engine, with what it is of and what it runs on beside it in F.engine.json."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from hybrid_seg_ros.files import whole_file
from hybrid_seg_ros.inference.backends.graph_info import GraphError, GraphInfo
from hybrid_seg_ros.inference.backends.tensorrt.cuda import GpuModel
from hybrid_seg_ros.model_spec import sha256_of

ENGINE_SUFFIX = '.engine'


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is: which part of which network, made of which ONNX file by which TensorRT for which GPUs.

    `gpu` is the name of the GPU that it was built on; None where it was built for compute capabilities alone.
    """

    graph: GraphInfo
    part: str
    onnx_sha256: str
    tensorrt: str
    compute_capabilities: tuple[int, ...]
    gpu: Optional[str] = None

    def check_runs_on(self, path: Path, tensorrt: str, gpu: GpuModel) -> None:
        """Raise GraphError unless the engine at `path` is for this TensorRT and this GPU."""
        again = 'build it again with hybrid_seg build-engine'
        if self.tensorrt != tensorrt:
            raise GraphError(f'{path}: was built with {self.tensorrt}, expected {tensorrt}, which is here; {again}')
        if gpu.compute_capability not in self.compute_capabilities:
            made_for = ', '.join(map(str, self.compute_capabilities))
            raise GraphError(f'{path}: was built for compute capability {made_for}, expected '
                             f'{gpu.compute_capability} ({gpu.name}); {again}')  # fmt: skip


def write_engines(engines: dict[Path, tuple[bytes, EngineInfo]]) -> None:
    """Write engines, each with its sidecar; all of them or none."""
    with ExitStack() as stack:
        for path, (data, info) in engines.items():
            partial = stack.enter_context(whole_file(path))
            partial.write_bytes(data)
            content = {**dataclasses.asdict(info), 'engine_sha256': sha256_of(partial)}
            partial = stack.enter_context(whole_file(sidecar(path)))
            partial.write_text(json.dumps(content, indent=2), encoding='utf-8')


def read_engine_info(path: Path) -> EngineInfo:
    """Read what the engine file `path` is.

    Raises FileNotFoundError if it or its sidecar is missing, GraphError if either is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'engine {path}: no such file')
    if not sidecar(path).is_file():
        raise FileNotFoundError(f'{path}: expected {sidecar(path).name} beside it, as hybrid_seg build-engine writes')
    try:
        fields = json.loads(sidecar(path).read_text(encoding='utf-8'))
        digest = fields.pop('engine_sha256')
        fields['graph'] = GraphInfo.from_json(json.dumps(fields['graph']))
        fields['compute_capabilities'] = tuple(fields['compute_capabilities'])
        info = EngineInfo(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GraphError(f'{sidecar(path)}: expected what hybrid_seg build-engine writes, got {error}') from error
    if sha256_of(path) != digest:
        raise GraphError(f'{path}: is damaged, or not the one that {sidecar(path).name} is about; '
                         'build it again with hybrid_seg build-engine')  # fmt: skip
    return info


def sidecar(path: Path) -> Path:
    """Return the path of an engine's description."""
    return path.with_name(path.name + '.json')
