"""The ModelSpec of weights that are to be converted: what their source fixes, and what only the user can tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hybrid_seg_ros.model_spec import Backbone, ModelSpec, ModelSpecError

NORMALIZATIONS = {
    'imagenet': ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    'half': ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
}
"""Mean and std of the published models: ImageNet's, or to [-1, 1]."""

CTS_BACKBONE = {'layer_norm_eps': 1e-5, 'class_token': True, 'final_norm': True}

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
    fields = {'name': name, **_fixed_by(source), **declared}
    if has_policy_file:
        fields = {**fields, 'policy': 'efficientnet_lite0', 'trunk_convention': 'timm'}
    fields['decoder'] = {**_decoder_of(source), **(declared.get('decoder') or {})}
    if source == 'cts':
        fields['backbone'] = _with_defaults(fields.get('backbone'), CTS_BACKBONE)
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


def read_spec(path: Path) -> dict[str, Any]:
    """Read a YAML file of spec fields."""
    if not path.is_file():
        raise FileNotFoundError(f'spec {path}: no such file')
    content = _yaml(path)
    if not isinstance(content, dict):
        raise ModelSpecError(f'{path}: expected a mapping, got {type(content).__name__}')
    if not isinstance(content.get('decoder', {}), dict):
        raise ModelSpecError(f'{path}: decoder: expected a mapping, got {content["decoder"]!r}')
    return content


def read_classes(path: Path) -> list[dict[str, Any]]:
    """Read the class entries of a spec: a text file with a name per line, a YAML list, or a model's YAML.

    The items of a YAML list are names, or mappings with name and color. Class ids are positions, so that an empty line
    is an error.
    """
    if not path.is_file():
        raise FileNotFoundError(f'classes {path}: no such file')
    if path.suffix in ('.yaml', '.yml'):
        entries = _yaml(path)
        entries = entries.get('classes') if isinstance(entries, dict) else entries
    else:
        entries = [line.strip() for line in path.read_text(encoding='utf-8').rstrip().splitlines()]
        if '' in entries:
            raise ModelSpecError(f'{path}: expected a class name on each line, line {entries.index("") + 1} is empty')
    if not isinstance(entries, list) or not entries:
        raise ModelSpecError(f'{path}: expected a list of classes, got {type(entries).__name__}')
    return [{'name': entry} if isinstance(entry, str) else entry for entry in entries]


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelSpecError(f'{path}: {error}') from error


def _fixed_by(source: str) -> dict[str, Any]:
    if source == 'segvit':
        return {'head': 'segvit_atm', 'policy': 'none'}
    if source == 'dtop':
        return {'head': 'atm', 'policy': 'none'}
    return {'policy': 'efficientnet_lite0', 'trunk_convention': 'timm', 'auxiliary_layers': []}


def _decoder_of(source: str) -> dict[str, Any]:
    return {'layers': 2 if source == 'cts' else 3}


def _with_defaults(backbone: Any, defaults: Mapping[str, Any]) -> Any:
    if backbone is None:
        return None
    return {**defaults, **(backbone if isinstance(backbone, Mapping) else {'preset': backbone})}
