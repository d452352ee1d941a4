"""The loop that every training shares: batches, steps, log, state to resume from, evaluation, shipped weights."""

from __future__ import annotations

import argparse
import csv
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor
from tqdm import tqdm

from hybrid_seg_ros.data.registry import DATASETS, open_dataset
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model, load_strictly, save_model
from hybrid_seg_ros.network.encoder_weights import load_encoder
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.batches import Batch, batches
from hybrid_seg_ros.training.imagenet_trunk import load_imagenet_trunk, trunks_of
from hybrid_seg_ros.training.schedule import create_optimizer, update_average
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError

log = logging.getLogger(__name__)

StepFunction = Callable[[HybridSegmenter, torch.optim.Optimizer, Batch, int, TrainConfig], dict[str, float]]
"""Does one optimiser step and returns the losses; raises FloatingPointError before it touches the weights."""

EvaluateFunction = Callable[[HybridSegmenter, ModelSpec, SegmentationDataset, TrainConfig], dict[str, Any]]
"""Evaluates a model on the validation set; may change the model."""


def run_training(
    config: TrainConfig, root: Path, run_dir: Path, do_step: StepFunction, evaluate: EvaluateFunction,
    trained: Callable[[str], bool] = lambda name: True, until: Optional[int] = None,
) -> Optional[ModelSpec]:  # fmt: skip
    """Train, or go on with the run in `run_dir`; returns the spec of the finished model.

    Writes `config.yaml`, `log.csv`, `state.pt` (to resume) and, at each evaluation and at the end, `model.yaml` with
    its weights and a line of `evaluations.jsonl`. Parameters whose name `trained` refuses keep their values. `until`
    stops after that many steps and returns None. Ctrl-C saves the state. A loss that is not finite raises
    FloatingPointError with the last saved state kept.
    """
    spec = ModelSpec.from_dict(config.model)
    train_set, val_set = (open_dataset(config.dataset, root, split) for split in ('train', 'val'))
    for variant in (*config.variants, config.evaluate_variant):
        spec.check_variant(Variant.parse(variant))
    if until is not None and until < 1:
        raise TrainConfigError(f'until: expected a number of steps >= 1, got {until}')
    if train_set.classes.names != spec.classes.names:
        raise TrainConfigError(f'model.classes: expected those of {config.dataset}, {train_set.classes.names}')
    run_dir.mkdir(parents=True, exist_ok=True)
    _claim(config, run_dir)
    model = initial_model(spec, config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and trained(name))
    optimizer = create_optimizer(model, config)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    done = _resume(run_dir / 'state.pt', model, optimizer, average)
    _cut_log(run_dir / 'log.csv', done)
    last_step = config.steps if until is None else min(config.steps, until)
    started = time.perf_counter()
    progress = tqdm(total=config.steps, initial=done, desc='train', unit='step', dynamic_ncols=True)
    try:
        for step, batch in batches(train_set, done, last_step, config, spec.mean):
            losses = do_step(model, optimizer, batch, step, config)
            update_average(average, model, config.ema_decay, step)
            done = step + 1
            progress.update()
            progress.set_postfix({name: f'{value:.3f}' for name, value in losses.items()})
            _log_losses(run_dir / 'log.csv', step, losses, time.perf_counter() - started)
            if done % config.save_every == 0 or done == last_step:
                _save_state(run_dir / 'state.pt', model, optimizer, average, done)
            if done % config.evaluate_every == 0 and done < config.steps:
                _ship(spec, average, run_dir, val_set, config, done, evaluate)
    except KeyboardInterrupt:
        # The interrupt may have come in the middle of an update: only a whole step may be saved over the last one.
        log.warning('interrupted after step %d; the state saved in %s goes on from its last saved step', done, run_dir)
        raise
    finally:
        progress.close()
    if last_step < config.steps:
        return None
    return _ship(spec, average, run_dir, val_set, config, config.steps, evaluate)


def initial_model(spec: ModelSpec, config: TrainConfig) -> HybridSegmenter:
    """Build the model to start from: `config.initial_model`, or a seeded one whose trunk has ImageNet weights."""
    torch.manual_seed(config.seed)
    model = HybridSegmenter(spec, config.drop_path)
    if config.initial_model is not None:
        initial = load_model(ModelSpec.load(config.initial_model))
        load_strictly(model, initial.state_dict(), config.initial_model)
    else:
        load_imagenet_trunk(model)
    if config.initial_encoder is not None:
        load_encoder(model, config.initial_encoder)
    for trunk in trunks_of(model):
        trunk.freeze(config.frozen_trunk_stages)
    return model


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a training command."""
    parser.add_argument('--config', type=Path, required=True, help='training configuration (YAML)')
    parser.add_argument('--root', type=Path, required=True, help=f'folder of the dataset ({", ".join(DATASETS)})')
    parser.add_argument('--run-dir', type=Path, required=True, help='folder for the run; an unfinished one goes on')
    parser.add_argument('--until', type=int, help='stop after this many steps of the run, ready to be resumed')
    parser.add_argument('--threads', type=int, help='CPU threads of PyTorch')


def run_command(args: argparse.Namespace, train: Callable[..., Optional[ModelSpec]]) -> int:
    """Run a training command."""
    if args.threads:
        torch.set_num_threads(args.threads)
    spec = train(TrainConfig.load(args.config), args.root, args.run_dir, args.until)
    if spec is None:
        print(f'stopped after step {args.until}; the same command without --until goes on')
    else:
        print(f'model written to {args.run_dir / "model.yaml"}')
    return 0


def _ship(
    spec: ModelSpec, average: dict[str, Tensor], run_dir: Path, val_set: SegmentationDataset, config: TrainConfig,
    step: int, evaluate: EvaluateFunction,
) -> ModelSpec:  # fmt: skip
    """Write the averaged weights as a model, and evaluate them."""
    averaged = HybridSegmenter(spec)
    averaged.load_state_dict(average)
    written = save_model(averaged, run_dir / 'model.yaml')
    line = {'step': step, **evaluate(averaged.eval(), written, val_set, config)}
    log.info('%s', line)
    with open(run_dir / 'evaluations.jsonl', 'a', encoding='utf-8') as stream:
        stream.write(json.dumps(line) + '\n')
    return written


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
) -> int:  # fmt: skip
    if not path.is_file():
        return 0
    state: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
    model.load_state_dict(state['model'])
    optimizer.load_state_dict(state['optimizer'])
    average.update(state['average'])
    log.info('going on after step %d of %s', state['step'], path)
    return state['step']


def _log_losses(path: Path, step: int, losses: dict[str, float], seconds: float) -> None:
    row = {'step': step, **losses, 'seconds': round(seconds, 3)}
    new = not path.is_file()
    with open(path, 'a', newline='', encoding='utf-8') as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def _cut_log(path: Path, done: int) -> None:
    """Take off the rows of steps that are done again after a kill."""
    if not path.is_file():
        return
    header, *rows = path.read_text(encoding='utf-8').splitlines()
    kept = [row for row in rows if int(row.split(',', 1)[0]) < done]
    path.write_text('\n'.join([header, *kept]) + '\n', encoding='utf-8')
