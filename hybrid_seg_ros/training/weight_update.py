"""One step of training: losses, gradients averaged over batches and processes, learning rates, the moving average."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_seg_ros.training.batches import Batch
from hybrid_seg_ros.training.devices import Processes
from hybrid_seg_ros.training.train_config import TrainConfig

LossFunction = Callable[[Any, Batch, int, TrainConfig], dict[str, Tensor]]
"""Computes the weighted losses of a model on one batch of a step: losses(model, batch, step, config)."""

MAX_SKIPPED_STEPS = 20
"""So many steps in a row may have infinite gradients in float16 while the loss scale is being found: it halves each."""


class WeightUpdate:
    """Updates the weights of a model from batches; called once a step."""

    def __init__(
        self, model: nn.Module, losses: LossFunction, optimizer: torch.optim.Optimizer, config: TrainConfig,
        processes: Processes, device: torch.device,
    ) -> None:  # fmt: skip
        self._losses = processes.wrap(_Losses(model, losses, config))
        # the policy network shares no gradient with the rest: one's norm says nothing of how far to trust the other's
        parameters = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        policy = [value for name, value in parameters if name.startswith('policy.')]
        self._clipped = [policy, [value for name, value in parameters if not name.startswith('policy.')]]
        self._optimizer, self._config = optimizer, config
        self._processes, self._device = processes, device
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == 'float16')
        self._skipped = 0

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, float]:
        """Do one step; returns the losses, averaged over batches and processes, the gradient's norm and the rate.

        Raises FloatingPointError, weights untouched, if a loss or the gradient is not finite, and ProcessFailedError
        if that or anything else happened in another process.
        """
        self._optimizer.zero_grad(set_to_none=True)
        values: list[dict[str, float]] = []
        with self._processes.together():
            for batch in batches[:-1]:
                with self._without_exchange():
                    self._backward(self._total(batch, step, values))
            total = self._total(batches[-1], step, values)
        self._backward(total)
        norm = self._clip(batches, step)
        factor = learning_rate_factor(step, self._config)
        for group in self._optimizer.param_groups:
            group['lr'] = group['base_lr'] * factor
        self._scaler.step(self._optimizer)  # in float16, leaves out a step whose gradients are infinite
        self._scaler.update()
        means = self._processes.mean([sum(value[name] for value in values) / len(values) for name in values[0]])
        rate = self._config.learning_rate * factor
        return {**dict(zip(values[0], means)), 'gradient_norm': norm, 'learning_rate': rate}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the loss scale of float16."""
        return {'scaler': self._scaler.state_dict(), 'skipped': self._skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._scaler.load_state_dict(state['scaler'])
        self._skipped = state['skipped']

    def _total(self, batch: Batch, step: int, values: list[dict[str, float]]) -> Tensor:
        losses = self._losses(batch.to(self._device), step)
        parts = torch.stack(list(losses.values()))
        total = parts.sum()
        numbers = torch.cat([total[None], parts]).tolist()
        value = dict(zip(('loss', *losses), numbers))
        if not all(map(math.isfinite, numbers)):
            raise FloatingPointError(f'step {step}: the loss is not finite: {value}, samples {", ".join(batch.names)}')
        values.append(value)
        return total

    def _backward(self, total: Tensor) -> None:
        self._scaler.scale(total / self._config.accumulate).backward()

    def _without_exchange(self) -> contextlib.AbstractContextManager:
        return self._losses.no_sync() if self._processes.count > 1 else contextlib.nullcontext()

    def _clip(self, batches: Sequence[Batch], step: int) -> float:
        """Clip the gradients, those of the policy network apart; returns the norm of all before."""
        self._scaler.unscale_(self._optimizer)
        clip = torch.nn.utils.clip_grad_norm_
        norm = math.hypot(*(clip(each, self._config.clip_norm).item() for each in self._clipped if each))
        if math.isfinite(norm):
            self._skipped = 0
            return norm
        self._skipped += 1
        in_float16 = self._scaler.is_enabled()
        if not in_float16 or self._skipped > MAX_SKIPPED_STEPS:
            names = ', '.join(name for batch in batches for name in batch.names)
            tries = f' in {self._skipped} steps running' if in_float16 else ''
            raise FloatingPointError(f'step {step}: the gradient is not finite{tries}: norm {norm}, samples {names}')
        return norm


class _Losses(nn.Module):
    """The losses as a module, which is what DistributedDataParallel wants: it sees which parameters they depend on."""

    def __init__(self, model: nn.Module, losses: LossFunction, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self._losses, self._config = losses, config

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        return self._losses(self.model, batch, step, self._config)


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Return the factor on the base rate: linear warm-up to 1 at its last step, then polynomial decay to 0."""
    if step < config.warmup_steps:
        first = 1 / config.warmup_steps if config.warmup_factor is None else config.warmup_factor
        return first + (1 - first) * (step / (config.warmup_steps - 1) if config.warmup_steps > 1 else 1.0)
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return max(0.0, 1.0 - progress) ** config.poly_power


def create_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with factors for heads and layers; no weight decay on norms, biases and embeddings.

    Each group's own base rate is kept in `base_lr`. Raises ValueError if no parameter is to be trained.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        if name.startswith(('head.', 'auxiliary_heads.', 'refinement.', 'policy.')):
            factor = 1.0 if name.startswith('policy.backbone.') else config.head_factor  # that one comes pretrained
        elif name.startswith('encoder.'):
            parts, depth = name.split('.'), len(model.encoder.blocks)
            layer = int(parts[2]) + 1 if parts[1] == 'blocks' else depth if parts[1] == 'norm' else 0
            factor = config.layer_decay ** (depth - layer)
        plain = parameter.ndim <= 1 or name.endswith(('pos_embed', 'cls_token', 'register_tokens', 'query.weight'))
        groups.setdefault((factor, 0.0 if plain else config.weight_decay), []).append(parameter)
    if not groups:
        raise ValueError('no parameter is left to train: freeze covers all of them')
    return torch.optim.AdamW(
        [
            {'params': parameters, 'lr': config.learning_rate * factor, 'base_lr': config.learning_rate * factor,
             'weight_decay': decay}
            for (factor, decay), parameters in groups.items()
        ],
        betas=config.betas,
    )  # fmt: skip


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Move `average` towards the weights, faster while few steps are done; other buffers are copied."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        if value.is_floating_point() and decay > 0:
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
