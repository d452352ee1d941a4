"""Learning-rate schedule, optimiser groups and the moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybrid_seg_ros.training.train_config import TrainConfig


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Return the factor on the base rate: linear warm-up to 1 at its last step, then polynomial decay to 0."""
    if step < config.warmup_steps:
        first = 1 / config.warmup_steps if config.warmup_factor is None else config.warmup_factor
        return first + (1 - first) * (step / (config.warmup_steps - 1) if config.warmup_steps > 1 else 1.0)
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return max(0.0, 1.0 - progress) ** config.poly_power


def create_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with factors for policy, heads and layers; no weight decay on norms, biases and embeddings.

    Each group's own base rate is kept in `base_lr`. Raises ValueError if no parameter is to be trained.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        if name.startswith('policy.backbone.'):
            factor = config.trunk_factor
        elif name.startswith(('head.', 'auxiliary_heads.', 'refinement.', 'policy.')):
            factor = config.head_factor
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
