"""Trace a segmenter into ONNX graphs: opset 17, static shapes but for the tokens that a threshold lets stay."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Union

import onnx
import torch
from torch import Tensor, nn

from hybrid_seg_ros.files import whole_file
from hybrid_seg_ros.inference.backends.graph_info import HEAD, METADATA_KEY, POLICY, TAIL, WHOLE, GraphInfo
from hybrid_seg_ros.model_spec import Variant
from hybrid_seg_ros.network.exportable import (
    HeadNetwork,
    MiddleNetwork,
    PolicyScores,
    TailNetwork,
    WholeNetwork,
    refinement_inputs,
)
from hybrid_seg_ros.network.inference_form import prepare_for_inference
from hybrid_seg_ros.network.segmenter import HybridSegmenter

OPSET = 17
"""The newest that TensorRT 8.6 reads."""

DTYPES = {'float32': torch.float32, 'float16': torch.float16}


@torch.inference_mode()
def export_graphs(model: HybridSegmenter, info: GraphInfo, path: Union[str, Path]) -> list[Path]:
    """Write the graphs that `info` describes, `path` or one file per part beside it, and return their paths.

    The model is taken over: its batch norms are folded, its weights cast to the precision. A graph takes `image`
    (B, H, W, 3) uint8, RGB, and where windows merge the layout; both, and what comes out, are told in
    `network/exportable.py`, under the same names. All files are written, whole, or none. Raises ValueError for a
    precision that graphs do not have.
    """
    if info.precision not in DTYPES:
        raise ValueError(f'export: unknown precision {info.precision!r}; legal are {", ".join(DTYPES)}')
    if info.by_threshold and (info.batch != 1 or info.outputs != 'scores'):
        raise ValueError('export: pruning by threshold takes batch 1 and outputs scores; give a fixed keep for others')
    model = prepare_for_inference(model.eval()).to(dtype=DTYPES[info.precision])
    files: list[Path] = []
    cells = info.grid_hw[0] * info.grid_hw[1]
    values: dict[str, Tensor] = {
        'image': torch.zeros(info.batch, *info.input_size_hw, 3, dtype=torch.uint8),
        'token_source': torch.zeros(info.batch, info.tokens, dtype=torch.int32),
        'token_of_cell': torch.zeros(info.batch, cells, dtype=torch.int32),
    }
    with ExitStack() as stack:
        for part in info.parts:
            module, inputs = _part(model, info, part)
            if 'tokens' in values:
                # For tracing every other token stays; the choice is an input, and nothing of it remains in the graph.
                values['stay'] = torch.arange(
                    0, int(values['tokens'].shape[1]) - info.num_prefix_tokens, 2, dtype=torch.int32
                )
                values['row_of_cell'] = torch.zeros(cells, dtype=torch.int32)
            example = tuple(values[name] for name in inputs)
            files.append(info.part_path(path, part))
            partial = stack.enter_context(whole_file(files[-1]))
            with _one_thread(info.precision == 'float16'):
                outputs = dict(zip(module.output_names, module(*example)))
                _write(module.eval(), example, inputs, outputs, dynamic_axes(info, part), info, partial)
            if part not in (POLICY, WHOLE, TAIL):
                values.update(outputs, tokens=outputs['next_tokens'], **{f'masks_{part}': outputs['masks']})
    return files


def part_inputs(info: GraphInfo, part: str, refinement: Sequence[str]) -> tuple[str, ...]:
    """Name the inputs of a graph, in order; `masks_head`, `masks_middle@8` are the `masks` of those parts."""
    if part == POLICY:
        return ('image',)
    if part in (WHOLE, HEAD):
        layout = ('token_source', 'token_of_cell') if part == WHOLE else ('token_source',)
        return ('image', *layout) if POLICY in info.parts else ('image',)
    if part != TAIL:
        return ('tokens', 'stay')
    return ('tokens', 'stay', 'row_of_cell', *(f'masks_{earlier}' for earlier in info.network_parts[:-1]), *refinement)


def _part(model: HybridSegmenter, info: GraphInfo, part: str) -> tuple[nn.Module, tuple[str, ...]]:
    variant = Variant.parse(info.variant)
    inputs = part_inputs(info, part, refinement_inputs(model))
    if part == POLICY:
        return PolicyScores(model, info.grid_hw), inputs
    if part == WHOLE:
        labels = info.outputs == 'labels'
        return WholeNetwork(model, variant, info.budget, info.grid_hw, info.windows, labels), inputs
    if part == HEAD:
        return HeadNetwork(model, variant, info.budget, info.grid_hw, info.windows), inputs
    if part == TAIL:
        return TailNetwork(model, variant, info.grid_hw), inputs
    layer = int(part.partition('@')[2])
    before = info.prune_layers[info.prune_layers.index(layer) - 1]
    return MiddleNetwork(model, before, layer), inputs


def dynamic_axes(info: GraphInfo, part: str) -> dict[str, dict[int, str]]:
    """Name the axes of inputs and outputs whose length depends on the image."""
    if part in (POLICY, WHOLE, HEAD):
        return {}
    axes = {'stay': {0: 'kept'}}
    if info.network_parts.index(part) > 1:  # its tokens come out of a middle part
        axes['tokens'] = {1: 'tokens'}
    if part != TAIL:
        outputs = {name: {1: 'kept'} for name in MiddleNetwork.output_names}
        if info.num_prefix_tokens:  # so many tokens more than are kept
            outputs['next_tokens'] = {1: 'next_tokens'}
        return {**axes, **outputs}
    return {**axes, **{f'masks_{earlier}': {1: f'masks_{earlier}'} for earlier in info.network_parts[1:-1]}}


def _write(
    module: nn.Module, example: tuple[Tensor, ...], inputs: Sequence[str], outputs: dict[str, Tensor],
    axes: dict[str, dict[int, str]], info: GraphInfo, path: Path,
) -> None:  # fmt: skip
    with warnings.catch_warnings():
        # The tracer says that Python numbers become constants, which is what static shapes are; and that a newer
        # exporter exists, which does not write opset 17.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            module, example, str(path), opset_version=OPSET, dynamo=False, input_names=list(inputs),
            output_names=list(outputs), dynamic_axes=axes,
        )  # fmt: skip
    proto = onnx.load(str(path))
    for value in proto.graph.output:  # the tracer loses sight of some sizes that are fixed
        for axis, side in enumerate(outputs[value.name].shape):
            if axis not in axes.get(value.name, {}):
                value.type.tensor_type.shape.dim[axis].dim_value = side
    onnx.helper.set_model_props(proto, {METADATA_KEY: info.to_json()})
    onnx.save(proto, str(path))


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Compute on one thread, where that is faster: float16 on a CPU takes 5 s to trace, and 30 s on two busy cores."""
    before = torch.get_num_threads()
    try:
        if wanted:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
