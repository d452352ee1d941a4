"""`hybrid_seg train`: train a segmenter with its auxiliary heads and policy network, resumable at any step."""

from __future__ import annotations

import argparse
import csv
import json
import logging
import time
from pathlib import Path
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from hybrid_seg_ros.data.registry import DATASETS, open_dataset
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.evaluation.evaluate_dataset import evaluate
from hybrid_seg_ros.inference.backends.torch_backend import TorchBackend
from hybrid_seg_ros.inference.pipeline import SegmentationPipeline
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.attention_to_mask import AtmHead
from hybrid_seg_ros.network.checkpoint import load_model, load_strictly, save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter, SegmenterOutput
from hybrid_seg_ros.training.batches import Batch, batches
from hybrid_seg_ros.training.imagenet_trunk import load_imagenet_trunk
from hybrid_seg_ros.training.losses import atm_loss, pixel_cross_entropy
from hybrid_seg_ros.training.schedule import create_optimizer, learning_rate_factor, update_average
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError

log = logging.getLogger(__name__)


def train(config: TrainConfig, root: Path, run_dir: Path, until: Optional[int] = None) -> Optional[ModelSpec]:
    """Train, or go on with the run in `run_dir`; returns the spec of the finished model.

    Writes `config.yaml`, `log.csv`, `state.pt` (to resume) and, at the end and at each evaluation, `model.yaml` with
    its weights. `until` stops after that many steps, as Ctrl-C does: the state is saved and None returned. A loss that
    is not finite raises FloatingPointError with the last good state kept.
    """
    spec = ModelSpec.from_dict(config.model)
    train_set, val_set = (open_dataset(config.dataset, root, split) for split in ('train', 'val'))
    if train_set.classes.names != spec.classes.names:
        raise TrainConfigError(f'model.classes: expected those of {config.dataset}, {train_set.classes.names}')
    run_dir.mkdir(parents=True, exist_ok=True)
    _claim(config, run_dir)
    torch.manual_seed(config.seed)
    model = _initial_model(spec, config)
    optimizer = create_optimizer(model, config)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    first_step = _resume(run_dir / 'state.pt', model, optimizer, average)
    last_step = min(config.steps, until or config.steps)
    step, seconds = first_step, time.perf_counter()
    progress = tqdm(total=config.steps, initial=first_step, desc='train', unit='step', dynamic_ncols=True)
    try:
        for step, batch in batches(train_set, first_step, config, spec.mean):
            if step >= last_step:
                break
            losses = train_step(model, optimizer, batch, step, config)
            update_average(average, model, config.ema_decay, step)
            progress.update()
            progress.set_postfix({name: f'{value:.3f}' for name, value in losses.items()})
            _log_losses(run_dir / 'log.csv', step, losses, time.perf_counter() - seconds)
            done = step + 1
            if done % config.save_every == 0 or done == last_step:
                _save_state(run_dir / 'state.pt', model, optimizer, average, done)
            if done % config.evaluate_every == 0 and done < config.steps:
                _checkpoint(model, average, run_dir, val_set, config, done)
    except KeyboardInterrupt:
        log.warning('interrupted at step %d; the last saved state in %s is kept', step, run_dir)
        raise
    finally:
        progress.close()
    if last_step < config.steps:
        return None
    return _checkpoint(model, average, run_dir, val_set, config, config.steps)


def train_step(
    model: HybridSegmenter, optimizer: torch.optim.Optimizer, batch: Batch, step: int, config: TrainConfig
) -> dict[str, float]:
    """Do one optimiser step; returns the losses. Raises FloatingPointError before the weights are touched."""
    torch.manual_seed(config.seed * 1_000_003 + step)  # dropout as if the run had never stopped
    model.train()
    if model.policy is not None:
        model.policy.eval()  # batch norm keeps its ImageNet statistics
    images, labels, policy_labels = batch
    variant = Variant.parse(config.variants[step % len(config.variants)])
    with torch.autocast('cpu', torch.bfloat16, enabled=config.precision == 'bfloat16'):
        output = model(model.normalize(images), variant, model.spec.budget, supervise=True)
    losses = segmentation_losses(output, labels, config)
    if config.policy_weight and output.policy_logits is not None:
        policy = F.cross_entropy(output.policy_logits.float(), policy_labels, ignore_index=255)
        losses['policy'] = config.policy_weight * policy
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        raise FloatingPointError(f'step {step}: loss is {total.item()}: {({k: v.item() for k, v in losses.items()})}')
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    factor = learning_rate_factor(step, config)
    for group in optimizer.param_groups:
        group['lr'] = group['base_lr'] * factor
    optimizer.step()
    return {'loss': total.item(), **{name: value.item() for name, value in losses.items()}}


def segmentation_losses(output: SegmenterOutput, labels: Tensor, config: TrainConfig) -> dict[str, Tensor]:
    """Return the weighted losses of all heads: ATM loss, and per-pixel cross-entropy of the class scores."""
    if not output.stages:
        raise TrainConfigError('model.head: only a model with ATM heads can be trained')
    stride = config.loss_stride
    labels = labels[:, stride // 2 :: stride, stride // 2 :: stride]
    losses: dict[str, Tensor] = {}
    for stage in output.stages:
        weight = 1.0 if stage is output.stages[-1] else config.auxiliary_weight
        cells = output.layout.unmerge(stage.mask_logits.transpose(1, 2))  # (B, cells, classes)
        masks = cells.transpose(1, 2).unflatten(2, output.layout.grid_hw).float()
        terms = [atm_loss(stage.class_logits, masks, labels).total]
        if config.pixel_weight:
            present = AtmHead.class_probability(stage.class_logits).clamp(min=1e-6)
            # log of the score p_c * sigmoid(m_c), so that the decision itself is trained
            scores = present.log()[:, :, None, None] + F.logsigmoid(masks)
            terms.append(config.pixel_weight * pixel_cross_entropy(scores, labels))
        losses[f'layer{stage.layer}'] = weight * torch.stack(terms).sum()
    return losses


def _initial_model(spec: ModelSpec, config: TrainConfig) -> HybridSegmenter:
    model = HybridSegmenter(spec, config.drop_path)
    if config.initial_model is not None:
        initial = load_model(ModelSpec.load(config.initial_model))
        load_strictly(model, initial.state_dict(), config.initial_model)
    elif model.policy is not None:
        load_imagenet_trunk(model.policy)
    if model.policy is not None:
        model.policy.backbone.freeze(config.frozen_trunk_stages)
    return model


def _checkpoint(
    model: HybridSegmenter, average: dict[str, Tensor], run_dir: Path, val_set: SegmentationDataset,
    config: TrainConfig, step: int,
) -> ModelSpec:  # fmt: skip
    """Evaluate the averaged weights and write them as a model."""
    averaged = HybridSegmenter(model.spec)
    averaged.load_state_dict(average)
    spec = save_model(averaged, run_dir / 'model.yaml')
    backend = TorchBackend(averaged, torch.device('cpu'), config.precision)
    variant = Variant.parse(config.evaluate_variant)
    pipeline = SegmentationPipeline(spec, backend, 'pytorch', config.precision, variant)
    result = evaluate(pipeline, val_set)
    log.info('step %d: %s mIoU %.2f %%, pixel accuracy %.2f %%', step, variant, result.miou, result.pixel_accuracy)
    line = {'step': step, 'variant': str(variant), 'miou': result.miou, 'pixel_accuracy': result.pixel_accuracy}
    with open(run_dir / 'evaluations.jsonl', 'a', encoding='utf-8') as stream:
        stream.write(json.dumps(line) + '\n')
    return spec


def _claim(config: TrainConfig, run_dir: Path) -> None:
    """Write the resolved configuration; refuse a folder that holds a run of another one."""
    path = run_dir / 'config.yaml'
    if path.is_file() and (run_dir / 'state.pt').is_file() and TrainConfig.load(path) != config:
        raise TrainConfigError(f'{run_dir} holds a run with another configuration; choose another folder or remove it')
    config.save(path)


def _save_state(
    path: Path, model: HybridSegmenter, optimizer: torch.optim.Optimizer, average: dict[str, Tensor], step: int
) -> None:
    partial = path.with_name(path.name + '.partial')
    state = {'step': step, 'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'average': average}
    torch.save(state, partial)
    partial.replace(path)


def _resume(
    path: Path, model: HybridSegmenter, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> int:
    if not path.is_file():
        return 0
    state: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
    model.load_state_dict(state['model'])
    optimizer.load_state_dict(state['optimizer'])
    average.update(state['average'])
    log.info('going on from step %d of %s', state['step'], path)
    return state['step']


def _log_losses(path: Path, step: int, losses: dict[str, float], seconds: float) -> None:
    row = {'step': step, **losses, 'seconds': round(seconds, 3)}
    new = not path.is_file()
    with open(path, 'a', newline='', encoding='utf-8') as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--config', type=Path, required=True, help='training configuration (YAML)')
    parser.add_argument('--root', type=Path, required=True, help=f'folder of the dataset ({", ".join(DATASETS)})')
    parser.add_argument('--run-dir', type=Path, required=True, help='folder for the run; an unfinished one goes on')
    parser.add_argument('--until', type=int, help='stop after this many steps of the run, ready to be resumed')
    parser.add_argument('--threads', type=int, help='CPU threads of PyTorch')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.threads:
        torch.set_num_threads(args.threads)
    spec = train(TrainConfig.load(args.config), args.root, args.run_dir, args.until)
    if spec is None:
        print(f'stopped at step {args.until}; the same command without --until goes on')
    else:
        print(f'model written to {spec.folder / "model.yaml"}')
    return 0
