"""Conversion of a whole segmenter, SegViT's, DToP's or CTS's, into ours: the ModelSpec that it needs, its weights."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from hybrid_seg_ros.export.checkpoint_names import (
    MMSEG_VIT,
    POLICY_NETWORK,
    SEGMENTER_DECODER,
    TIMM_VIT,
    rename_atm,
    renamer,
)
from hybrid_seg_ros.model_spec import Backbone, ModelSpec, ModelSpecError
from hybrid_seg_ros.network.checkpoint import CheckpointError, resize_position_embedding
from hybrid_seg_ros.network.encoder_weights import without_unused_prefix_tokens

log = logging.getLogger(__name__)

FIXED: dict[str, dict[str, Any]] = {
    'segvit': {'head': 'segvit_atm', 'policy': 'none', 'decoder': {'layers': 3}},
    'dtop': {'head': 'atm', 'policy': 'none', 'decoder': {'layers': 3}},
    'cts': {
        'policy': 'efficientnet_lite0', 'trunk_convention': 'timm', 'auxiliary_layers': [], 'decoder': {'layers': 2},
    },
}  # fmt: skip
"""Fields of the ModelSpec that follow from the published code of each source."""
CTS_BACKBONE = {'layer_norm_eps': 1e-5, 'class_token': True, 'final_norm': True}
MODEL_SOURCES = tuple(FIXED)

_UNKNOWN = ' (unknown to '

GridHW = tuple[int, int]
Part = tuple[str, str, Callable[[str], Optional[str]]]
"""The prefix of a part's keys in the file, the prefix of ours, and the renaming of what follows."""

NORMALIZATIONS = {
    'imagenet': ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    'half': ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
}
"""Mean and std of the published models: ImageNet's, or to [-1, 1]."""

REQUIRED = {
    'backbone': '--backbone',
    'classes': '--classes',
    'input_size_hw': '--input-size',
    'mean': '--normalization',
    'std': '--normalization',
    'auxiliary_layers': '--auxiliary-layers',
    'head': '--head',
    'decoder.num_heads': '--decoder-heads',
}
"""What the weights do not tell, and the option for it."""


def converted_spec(source: str, name: str, declared: Mapping[str, Any], has_policy_file: bool) -> ModelSpec:
    """Build the spec from declared fields (as a model's YAML has them) and what the source's published code fixes.

    Raises ModelSpecError that lists what is to be declared: a number of attention heads, say, changes no shape, so a
    wrong one would go unnoticed.
    """
    fields = {'name': name, **FIXED[source], **declared}
    if has_policy_file:
        fields = {**fields, 'policy': 'efficientnet_lite0', 'trunk_convention': 'timm'}
    fields['decoder'] = {**FIXED[source]['decoder'], **(declared.get('decoder') or {})}
    backbone = fields.get('backbone')
    if source == 'cts' and backbone is not None:
        fields['backbone'] = {**CTS_BACKBONE, **(backbone if isinstance(backbone, Mapping) else {'preset': backbone})}
    needless = {'linear': ('decoder.num_heads',)}.get(str(fields.get('head')), ())
    present = {key for key in fields if fields[key] is not None} | {f'decoder.{key}' for key in fields['decoder']}
    missing = [key for key in REQUIRED if key not in present and key not in needless]
    if missing:
        options = ', '.join(f'{key} ({REQUIRED[key]})' for key in missing)
        raise ModelSpecError(f'{source}: expected, in --spec or as options, what weights do not tell: {options}')
    if 'variant' not in fields and source == 'dtop' and fields['head'] == 'atm':
        fields['variant'] = 'dtop@' + '+'.join(str(layer) for layer in fields['auxiliary_layers'])
    if 'variant' not in fields and source == 'cts' and fields['policy'] != 'none':
        fields['variant'] = 'cts'
    return ModelSpec.from_dict(fields)


def encoder_backbone(declared: Mapping[str, Any]) -> Backbone:
    """Return the backbone of an encoder, as declared."""
    if declared.get('backbone') is None:
        raise ModelSpecError('backbone: expected it as an option (--backbone) or in --spec')
    spec = ModelSpec.from_dict({'name': 'encoder', 'backbone': declared['backbone'], 'classes': [{'name': 'any'}],
                                'auxiliary_layers': []})
    return spec.backbone


def convert_model(
    source: str, state: Mapping[str, Tensor], spec: ModelSpec, source_size_hw: Optional[Sequence[int]] = None,
    policy_state: Optional[Mapping[str, Tensor]] = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the weights of `HybridSegmenter(spec)`, from a state dict of SegViT, DToP or CTS.

    `source_size_hw` is the image size (pixels) that the position embedding was made for: see `grid_of`.
    `policy_state` is the separate file of CTS's policy network. Keys that the source's code does not have stay in the
    result, marked, so that a strict load lists them together with missing ones.
    """
    parts = _parts(source, spec)
    prefixes = tuple(prefix for prefix, _, _ in parts)
    state = _unwrapped(state, prefixes)
    if not any(key.startswith(prefixes) for key in state):
        raise CheckpointError(
            f'{source}: expected keys that start with {", ".join(prefixes)}; none of {len(state)} does, as '
            f'{next(iter(state), "")!r}: of other code, or an encoder alone (convert timm|augreg|dinov2)?'
        )
    converted = renamed(state, parts, source)
    if policy_state is not None:
        if any(key.startswith('policy.') for key in converted):
            raise CheckpointError(f'{source}: the checkpoint has a policy network of its own; expected no second one')
        policy_state = _unwrapped(policy_state, ('backbone.', 'head.'))
        converted.update(renamed(policy_state, (('', 'policy.', renamer(POLICY_NETWORK)),), 'the policy network'))
    if spec.policy != 'none' and not any(key.startswith('policy.') for key in converted):
        raise CheckpointError(f'{source}: no policy network (policy_net.*) in the file; expected its own file as well')
    encoder = {key.partition('.')[2]: value for key, value in converted.items() if key.startswith('encoder.')}
    patch = spec.backbone.patch_size
    grid_hw = spec.backbone.grid_hw(spec.input_size_hw)
    if not any(_UNKNOWN in key for key in converted):  # else a strict load lists them: what is no ViT has no such grid
        encoder = _resized(encoder, patch, source_size_hw, grid_hw)
    fitted = without_unused_prefix_tokens(encoder, spec.backbone)
    others = {key: value for key, value in converted.items() if not key.startswith('encoder.')}
    return {**{f'encoder.{key}': value for key, value in fitted.items()}, **others}


def grid_of(
    count: int, patch_size: int, size_hw: Optional[Sequence[int]], target_hw: Optional[GridHW] = None
) -> GridHW:
    """Return the (rows, columns) of a position embedding with `count` entries, class token aside.

    They follow from the declared image size. Without one, a square number is taken for a square grid, as nearly every
    ViT is pretrained on squares; anything else must be declared, and so must a square number that is also the size of a
    `target_hw` that is not square.
    """
    if size_hw is not None:
        grid_hw = (size_hw[0] // patch_size, size_hw[1] // patch_size)
        if size_hw[0] % patch_size or size_hw[1] % patch_size or grid_hw[0] * grid_hw[1] != count:
            raise CheckpointError(
                f'position embedding: expected {grid_hw[0]}x{grid_hw[1]} entries for images of '
                f'{size_hw[0]}x{size_hw[1]} and patches of {patch_size}, got {count}'
            )
        return grid_hw
    side = math.isqrt(max(0, count))
    ambiguous = target_hw is not None and target_hw[0] != target_hw[1] and target_hw[0] * target_hw[1] == count
    if count < 1 or side * side != count or ambiguous:
        raise CheckpointError(
            f'position embedding: its {count} entries may be rows and columns in several ways: give the image size it '
            'was made for (--source-size HEIGHT WIDTH)'
        )
    log.info('position embedding: %d entries taken for a square grid, %dx%d', count, side, side)
    return side, side


def _parts(source: str, spec: ModelSpec) -> tuple[Part, ...]:
    mmseg = (('backbone.', 'encoder.', renamer(MMSEG_VIT)), ('decode_head.', 'head.', rename_atm))
    if source == 'segvit':
        return mmseg
    if source == 'dtop':
        return mmseg + tuple(
            (f'auxiliary_head.{index}.', f'auxiliary_heads.{layer}.', rename_atm)
            for index, layer in enumerate(spec.auxiliary_layers)
        )
    if source == 'cts':
        dropped = spec.policy == 'none'
        return (
            ('encoder.', 'encoder.', renamer(TIMM_VIT)),
            ('decoder.', 'head.', renamer(SEGMENTER_DECODER)),
            ('policy_net.', 'policy.', renamer(((r'.*', None),) if dropped else POLICY_NETWORK)),
        )
    raise CheckpointError(f'unknown source {source!r}; legal are {", ".join(MODEL_SOURCES)}')


def _unwrapped(state: Mapping[str, Tensor], parts: Sequence[str]) -> Mapping[str, Tensor]:
    """Take off what stands before the parts, as `module.` of a DataParallel; keys of other things are left out."""
    part = '|'.join(map(re.escape, parts))
    matches = [re.match(rf'((?:\w+\.)*?)(?:{part})', key) for key in state]
    wrappers = sorted({match[1] for match in matches if match})
    if not wrappers or '' in wrappers:
        return state
    if len(wrappers) > 1:
        raise CheckpointError(f'several models, behind {", ".join(wrappers)}: name one with --key-prefix')
    others = [key for key in state if not key.startswith(wrappers[0])]
    log.info('%r taken off all keys%s', wrappers[0], f'; left out: {", ".join(others)}' if others else '')
    return {key[len(wrappers[0]) :]: value for key, value in state.items() if key.startswith(wrappers[0])}


def renamed(state: Mapping[str, Tensor], parts: Sequence[Part], source: str) -> dict[str, Tensor]:
    """Rename the keys of each part; those that nobody knows stay, marked, for a strict load to list them."""
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        name: Optional[str] = f'{key}{_UNKNOWN}{source})'
        for prefix, ours, rename in parts:
            if key.startswith(prefix):
                try:
                    own = rename(key[len(prefix) :])
                except KeyError:
                    continue
                name = None if own is None else ours + own
                break
        if name is not None:
            if name in result:
                raise CheckpointError(f'{source}: {key} is one of two keys for {name}')
            result[name] = value
    return result


def _resized(
    encoder: dict[str, Tensor], patch_size: int, source_size_hw: Optional[Sequence[int]], grid_hw: GridHW
) -> dict[str, Tensor]:
    pos_embed = encoder.get('pos_embed')
    if pos_embed is None or pos_embed.ndim != 3:  # a strict load says so
        return encoder
    prefix = int('cls_token' in encoder)
    from_hw = grid_of(pos_embed.shape[1] - prefix, patch_size, source_size_hw, grid_hw)
    if from_hw != grid_hw:
        log.info('position embedding: resized from %dx%d to %dx%d', *from_hw, *grid_hw)
    with torch.no_grad():
        return {**encoder, 'pos_embed': resize_position_embedding(pos_embed.float(), prefix, from_hw, grid_hw)}
