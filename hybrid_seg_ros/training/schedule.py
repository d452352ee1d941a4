"""Learning-rate schedule, optimiser groups and the moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.train_config import TrainConfig


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Return the factor on the base rate: linear warm-up, then polynomial decay to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return max(0.0, 1.0 - progress) ** config.poly_power


def create_optimizer(model: HybridSegmenter, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with a factor for trunk and heads; no weight decay on norms, biases, embeddings of positions and classes.

    Each group's own base rate is kept in `base_lr`.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        if name.startswith(('trunk.', 'policy.backbone.')):
            factor = config.trunk_factor
        elif name.startswith(('head.', 'auxiliary_heads.', 'refinement.', 'policy.')):
            factor = config.head_factor
        plain = parameter.ndim <= 1 or name.endswith(('pos_embed', 'cls_token', 'query.weight'))
        groups.setdefault((factor, 0.0 if plain else config.weight_decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {'params': parameters, 'lr': config.learning_rate * factor, 'base_lr': config.learning_rate * factor,
             'weight_decay': decay}
            for (factor, decay), parameters in groups.items()
        ]
    )  # fmt: skip


def update_weights(
    model: nn.Module, optimizer: torch.optim.Optimizer, losses: dict[str, Tensor], step: int, config: TrainConfig
) -> dict[str, float]:
    """Back-propagate the sum of `losses`, clip, and step at the schedule's rate; returns the losses as numbers.

    Raises FloatingPointError, weights untouched, if the sum or its gradient is not finite.
    """
    total = torch.stack(list(losses.values())).sum()
    values = {'loss': total.item(), **{name: value.item() for name, value in losses.items()}}
    if not torch.isfinite(total):
        raise FloatingPointError(f'step {step}: the loss is not finite: {values}')
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    if not torch.isfinite(norm):
        raise FloatingPointError(f'step {step}: the gradient is not finite: norm {norm.item()}, losses {values}')
    for group in optimizer.param_groups:
        group['lr'] = group['base_lr'] * learning_rate_factor(step, config)
    optimizer.step()
    return values


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Move `average` towards the weights, faster while few steps are done; other buffers are copied."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        if value.is_floating_point() and decay > 0:
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
