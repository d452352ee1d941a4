"""AugReg's JAX checkpoints (.npz): their names and layouts, turned into timm's, which are our encoder's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hybrid_seg_ros.network.checkpoint import CheckpointError
from hybrid_seg_ros.network.checkpoint_names import rename_augreg


def augreg_to_timm(arrays: Mapping[str, Tensor], num_heads: int) -> dict[str, Tensor]:
    """Rename and transpose; query, key and value stay apart, the classifier is dropped, unknown names stay, marked.

    Raises CheckpointError if the arrays have another number of heads than declared: here, unlike in timm's layout,
    it can be seen.
    """
    result: dict[str, Tensor] = {}
    for key, array in arrays.items():
        try:
            name = rename_augreg(key)
        except KeyError:
            name = f'{key} (unknown to augreg)'
        if name is not None:
            result[name] = _to_torch_layout(name, array, num_heads)
    return result


def _to_torch_layout(name: str, array: Tensor, num_heads: int) -> Tensor:
    """Flax keeps inputs first: (in, out), (height, width, in, out), and attention as (in, heads, d)."""
    if '.attn.' in name and array.ndim > 1:
        heads = array.shape[1 if '.weight' in name and '.proj.' not in name else 0]
        if heads != num_heads:
            raise CheckpointError(f'augreg: {name}: expected {num_heads} heads, got {heads}')
    if array.ndim == 4:
        return array.permute(3, 2, 0, 1).contiguous()  # (out, in, height, width)
    if name.endswith('.proj.weight') and array.ndim == 3:
        return array.flatten(0, 1).T.contiguous()  # (out, heads * d)
    if name.endswith('.weight') and array.ndim == 3:
        return array.flatten(1).T.contiguous()  # (heads * d, in)
    if name.endswith('.weight') and array.ndim == 2:
        return array.T.contiguous()  # (out, in)
    if name.endswith('.bias'):
        return array.flatten()
    return array
