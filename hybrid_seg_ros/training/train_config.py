"""TrainConfig: how a model is trained; read from a short YAML of differences from the defaults."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from hybrid_seg_ros.files import write_text
from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.model_spec import Variant

PRECISIONS = ('auto', 'float32', 'bfloat16', 'float16')
AUGMENTATIONS = ('crop', 'stretch')
POLICY_TARGETS = ('single_class', 'kept_share')
DATASET_CLASSES = 'dataset'
"""As `model.classes`: the classes of the dataset at hand."""

_LISTS = ('crop_hw', 'scale', 'variants', 'betas', 'freeze', 'reinitialize', 'fit_sides',
          'entering_share', 'keep_share')
_NUMBERS = {
    **dict.fromkeys(('learning_rate', 'clip_norm', 'head_factor', 'weight_decay', 'poly_power'), (0.0, math.inf)),
    **dict.fromkeys(('atm_weight', 'auxiliary_weight', 'distillation_weight', 'pixel_weight', 'class_balance',
                     'lovasz_weight', 'policy_weight'), (0.0, math.inf)),
    **dict.fromkeys(('ema_decay', 'drop_path'), (0.0, 0.999999)),
    'layer_decay': (0.01, 1.0),
}  # fmt: skip
"""The least and the largest value of each number."""

_FROM_ZERO = ('warmup_steps', 'seed')
_COUNTS = ('batch_size', 'accumulate', 'steps', 'loss_stride', 'evaluate_every', 'save_every')


class TrainConfigError(ValueError):
    """A training configuration that cannot be used; the message names the field."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that defines a training run but the data's place on disk, the device and the number of processes.

    `model` is a ModelSpec as a YAML mapping; its `classes: dataset` means those of the dataset. `initial_model` is the
    YAML of a model to start from: what lies under the prefixes in `reinitialize` starts anew, all else must fit.
    `initial_encoder` is a file of encoder weights that `hybrid_seg convert` wrote. `narrowed_from` is the YAML of a
    trained model with a wider encoder, to which the model is fitted to start with (`fit_narrow_model`). Parameters
    under the prefixes in `freeze` keep their values.

    `augmentation` 'crop' is mmseg's: resize by a factor of `scale`, crop to `crop_hw`, flip, photometric distortion;
    the factor is of the image's own size or, with `fit_sides` (short, long), of the largest that fits into these.
    'stretch' resizes straight to `crop_hw` and flips (CTS' policy network). A step sees `accumulate` batches of
    `batch_size` samples in each process. `head_factor` multiplies `learning_rate` for the heads and the policy network,
    but not for its EfficientNet, which comes pretrained; with `layer_decay` d, an encoder layer that has k layers
    behind it has a rate of d^k (BEiT's layer-wise decay; the embedding counts as one layer). Warm-up is linear from
    `warmup_factor` (None: 1 / `warmup_steps`), then polynomial decay to 0.

    `variants` are trained in turn, step by step, so that one set of weights serves them all. With `entering_share`
    (low, high) each step merges windows of random sizes until a random share of the tokens is left to enter the
    encoder; with `keep_share` pruning keeps a random share at each layer; without, both are the model's own budget.
    `atm_weight` is that of the ATM loss, `pixel_weight` that of the per-pixel cross-entropy. `loss_stride`: both
    are computed on every n-th pixel of the labels, from a random one on. `class_balance` b weighs class c of the
    per-pixel cross-entropy by (median frequency / frequency of c)^b (1: median frequency balancing, 0: off).
    `lovasz_weight` is that of the Lovasz-Softmax loss of the final masks, `policy_weight` that of the policy
    network's, which learns to tell windows of a single class (CTS), or with the `policy_target` 'kept_share' what
    share of a window its most frequent class can stand for (`kept_share`), so that of mixed windows those that lose
    least merge first. With `distillation_weight` auxiliary heads learn from the last head as well, and the model
    from `teacher`, the YAML of another one: from its dense masks, in `train-policy` from its policy network.
    `best_metric` is the number of the evaluation that chooses best.yaml, with a minus in front if lower is better
    (None: the command's own choice).
    """

    model: dict[str, Any]
    initial_model: Optional[str] = None
    reinitialize: tuple[str, ...] = ()
    initial_encoder: Optional[str] = None
    narrowed_from: Optional[str] = None
    freeze: tuple[str, ...] = ()
    dataset: str = 'camvid'
    augmentation: str = 'crop'
    crop_hw: tuple[int, int] = (512, 512)
    scale: tuple[float, float] = (0.5, 2.0)
    fit_sides: Optional[tuple[int, int]] = None
    batch_size: int = 8
    accumulate: int = 1
    steps: int = 40_000
    learning_rate: float = 2e-5
    betas: tuple[float, float] = (0.9, 0.999)
    head_factor: float = 10.0
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    warmup_steps: int = 1500
    warmup_factor: Optional[float] = None
    poly_power: float = 0.9
    clip_norm: float = 1.0
    drop_path: float = 0.1
    ema_decay: float = 0.0
    variants: tuple[str, ...] = ('dense',)
    entering_share: Optional[tuple[float, float]] = None
    keep_share: Optional[tuple[float, float]] = None
    atm_weight: float = 1.0
    auxiliary_weight: float = 1.0
    distillation_weight: float = 0.0
    teacher: Optional[str] = None
    pixel_weight: float = 0.0
    class_balance: float = 0.0
    lovasz_weight: float = 0.0
    policy_weight: float = 0.0
    policy_target: str = 'single_class'
    loss_stride: int = 1
    precision: str = 'auto'
    seed: int = 0
    evaluate_every: int = 1000
    save_every: int = 200
    evaluate_variant: str = 'dense'
    best_metric: Optional[str] = None

    def __post_init__(self) -> None:
        for name in _LISTS:
            value = getattr(self, name)
            if name in ('fit_sides', 'entering_share', 'keep_share') and value is None:
                continue
            if isinstance(value, str) or not hasattr(value, '__iter__'):
                raise TrainConfigError(f'{name}: expected a list, got {value!r}')
            object.__setattr__(self, name, tuple(value))
        for name in _COUNTS:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise TrainConfigError(f'{name}: expected an integer >= 1, got {getattr(self, name)!r}')
        for name in _FROM_ZERO:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise TrainConfigError(f'{name}: expected an integer >= 0, got {value!r}')
        for name, (low, high) in _NUMBERS.items():
            value = getattr(self, name)
            if isinstance(value, str):  # YAML reads 1e-3, without a point, as text
                with contextlib.suppress(ValueError):
                    value = float(value)
                    object.__setattr__(self, name, value)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                between = f'of at least {low}' if high == math.inf else f'from {low} to {high}'
                raise TrainConfigError(f'{name}: expected a number {between}, got {value!r}')
        for name, legal in (
            ('precision', PRECISIONS), ('augmentation', AUGMENTATIONS), ('policy_target', POLICY_TARGETS),
        ):  # fmt: skip
            if getattr(self, name) not in legal:
                raise TrainConfigError(f'{name}: unknown {getattr(self, name)!r}; legal are {", ".join(legal)}')
        for name in ('learning_rate', 'clip_norm'):
            if not getattr(self, name) > 0:
                raise TrainConfigError(f'{name}: expected a number > 0, got {getattr(self, name)!r}')
        if self.warmup_factor is not None and not 0 <= self.warmup_factor <= 1:
            raise TrainConfigError(f'warmup_factor: expected a number from 0 to 1, got {self.warmup_factor!r}')
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise TrainConfigError(f'betas: expected two numbers from 0 to below 1, got {self.betas}')
        if len(self.crop_hw) != 2 or not all(isinstance(side, int) and side > 0 for side in self.crop_hw):
            raise TrainConfigError(f'crop_hw: expected [height, width] in pixels, got {self.crop_hw}')
        if self.fit_sides is not None and (len(self.fit_sides) != 2 or not 0 < self.fit_sides[0] <= self.fit_sides[1]):
            raise TrainConfigError(f'fit_sides: expected [short, long] in pixels, got {self.fit_sides}')
        for name in ('entering_share', 'keep_share'):
            share = getattr(self, name)
            if share is not None and (len(share) != 2 or not 0 < share[0] <= share[1] <= 1):
                raise TrainConfigError(f'{name}: expected [low, high] with 0 < low <= high <= 1, got {share}')
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise TrainConfigError(f'scale: expected [low, high] with 0 < low <= high, got {self.scale}')
        if self.teacher is not None and not self.distillation_weight:
            raise TrainConfigError('teacher: expected a distillation_weight above 0 with it')
        if self.narrowed_from is not None and (self.initial_model is not None or self.initial_encoder is not None):
            raise TrainConfigError('narrowed_from: expected no initial_model and no initial_encoder with it')
        if self.reinitialize and self.initial_model is None:
            raise TrainConfigError('reinitialize: expected only together with initial_model')
        if not self.variants:
            raise TrainConfigError('variants: expected at least one')
        for variant in (*self.variants, self.evaluate_variant):
            Variant.parse(variant)

    def resolved(self, classes: LabelSpace) -> 'TrainConfig':
        """Return the configuration with the dataset's classes written out. Raises TrainConfigError if it has others."""
        own = self.model.get('classes')
        entries = classes.to_entries()
        if own != DATASET_CLASSES:
            if not own or LabelSpace.from_entries(own).names != classes.names:
                raise TrainConfigError(
                    f'model.classes: expected {DATASET_CLASSES!r} or those of {self.dataset}, {classes.names}'
                )
            entries = own
        return dataclasses.replace(self, model={**self.model, 'classes': entries})

    @classmethod
    def load(cls, path: Union[str, Path], changes: Sequence[str] = ()) -> 'TrainConfig':
        """Read a YAML file, with `changes` such as `steps=100` or `model.policy=half_size`; unknown keys are errors.

        A file may state only what differs from another one, which its key `base` names relative to itself.
        """
        path = Path(path)
        content = _read(path)
        if not isinstance(content.get('model'), dict):
            raise TrainConfigError(f'{path}: expected a mapping with at least the key "model", a mapping too')
        for change in changes:
            _apply(content, change)
        legal = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(map(str, set(content) - set(legal)))
        if unknown:
            raise TrainConfigError(f'{path}: unknown keys {unknown}; legal are {", ".join(legal)}')
        try:
            return cls(**content)
        except (TypeError, ValueError) as error:
            raise TrainConfigError(f'{path}: {error}') from error

    def save(self, path: Path) -> None:
        """Write the resolved configuration, whole or not at all."""
        content = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        write_text(path, yaml.safe_dump(content, sort_keys=False))


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a configuration file on top of its `base`, if it names one; `above` are the files that build on it."""
    if not path.is_file():
        raise FileNotFoundError(f'training configuration {path}: no such file')
    if path.resolve() in above:
        raise TrainConfigError(f'{path}: its base builds on itself')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainConfigError(f'{path}: no YAML: {error}') from error
    if not isinstance(content, dict):
        raise TrainConfigError(f'{path}: expected a mapping with at least the key "model", a mapping too')
    base = content.pop('base', None)
    if base is None:
        return content
    below = _read(path.parent / str(base), (*above, path.resolve()))
    if isinstance(below.get('model'), dict) and isinstance(content.get('model'), dict):
        content['model'] = {**below['model'], **content['model']}
    return {**below, **content}


def _apply(content: dict[str, Any], change: str) -> None:
    """Set one value, `KEY=VALUE` or `KEY.KEY=VALUE` with the value in YAML, in what a configuration file holds."""
    path, equals, text = change.partition('=')
    *parents, name = path.split('.')
    if not equals or not all((*parents, name)):
        raise TrainConfigError(f'expected a change as KEY=VALUE or KEY.KEY=VALUE, got {change!r}')
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise TrainConfigError(f'{change!r}: {parent} holds no keys')
    try:
        content[name] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainConfigError(f'{change!r}: the value is no YAML: {error}') from error


def is_under(name: str, prefixes: tuple[str, ...]) -> bool:
    """Tell whether a parameter is one of `prefixes` or lies under one: `encoder.blocks.1` is not over `.10`."""
    return any(name == prefix or name.startswith(prefix.rstrip('.') + '.') for prefix in prefixes)
