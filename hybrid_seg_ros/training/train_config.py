"""TrainConfig: how a model is trained; read from a short YAML of differences from the defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from hybrid_seg_ros.model_spec import Variant


class TrainConfigError(ValueError):
    """A training configuration that cannot be used; the message names the field."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that defines a training run but the data's place on disk.

    `model` is a ModelSpec as a YAML mapping. `variants` are trained in turn, step by step, so that one set of weights
    serves them all. `loss_stride`: mask losses are computed on every n-th pixel of the labels. Learning-rate factors
    multiply `learning_rate` for the EfficientNet trunk and for the heads; the trunk's first `frozen_trunk_stages`
    stages keep their ImageNet weights. `class_balance` b weighs class c of the per-pixel cross-entropy by
    (median frequency / frequency of c)^b (1: median frequency balancing, 0: off). `initial_model` is the YAML of a
    model to start from, `initial_encoder` a file of encoder weights that `hybrid_seg convert` wrote.
    """

    model: dict[str, Any]
    initial_model: Optional[str] = None
    initial_encoder: Optional[str] = None
    dataset: str = 'camvid'
    crop_hw: tuple[int, int] = (512, 512)
    scale: tuple[float, float] = (0.5, 2.0)
    batch_size: int = 8
    steps: int = 40_000
    learning_rate: float = 2e-5
    trunk_factor: float = 1.0
    frozen_trunk_stages: int = 0
    head_factor: float = 10.0
    weight_decay: float = 0.01
    warmup_steps: int = 1500
    poly_power: float = 0.9
    clip_norm: float = 1.0
    drop_path: float = 0.1
    ema_decay: float = 0.0
    variants: tuple[str, ...] = ('dense',)
    auxiliary_weight: float = 1.0
    distillation_weight: float = 0.0
    pixel_weight: float = 0.0
    class_balance: float = 0.0
    policy_weight: float = 0.0
    loss_stride: int = 1
    precision: str = 'bfloat16'
    seed: int = 0
    evaluate_every: int = 1000
    save_every: int = 200
    evaluate_variant: str = 'dense'

    def __post_init__(self) -> None:
        for name in ('crop_hw', 'scale', 'variants'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ('batch_size', 'steps', 'loss_stride', 'evaluate_every', 'save_every'):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise TrainConfigError(f'{name}: expected an integer >= 1, got {getattr(self, name)!r}')
        if not self.learning_rate > 0:
            raise TrainConfigError(f'learning_rate: expected a number > 0, got {self.learning_rate!r}')
        if self.precision not in ('float32', 'bfloat16'):
            raise TrainConfigError(f'precision: unknown {self.precision!r}; legal are float32, bfloat16')
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise TrainConfigError(f'scale: expected [low, high] with 0 < low <= high, got {self.scale}')
        if not self.variants:
            raise TrainConfigError('variants: expected at least one')
        for variant in (*self.variants, self.evaluate_variant):
            Variant.parse(variant)

    @classmethod
    def load(cls, path: Union[str, Path]) -> 'TrainConfig':
        """Read a YAML file; unknown keys are errors."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f'training configuration {path}: no such file')
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        if not isinstance(content, dict) or 'model' not in content:
            raise TrainConfigError(f'{path}: expected a mapping with at least the key "model"')
        legal = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(content) - set(legal))
        if unknown:
            raise TrainConfigError(f'{path}: unknown keys {unknown}; legal are {", ".join(legal)}')
        try:
            return cls(**content)
        except (TypeError, ValueError) as error:
            raise TrainConfigError(f'{path}: {error}') from error

    def save(self, path: Path) -> None:
        """Write the resolved configuration."""
        content = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding='utf-8')
