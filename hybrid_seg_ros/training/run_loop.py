"""The loop that every training shares: batches, steps, log, state to resume from, evaluation, models kept."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from pathlib import Path
from typing import Optional

import torch

from hybrid_seg_ros.data.check_dataset import check_dataset
from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.data.segmentation_dataset import SegmentationDataset
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.token_merging import count_merged_windows
from hybrid_seg_ros.training.batches import POLICY_PATCH, batches, build_batch, default_workers
from hybrid_seg_ros.training.devices import (
    Processes,
    joined_processes,
    prepare_model,
    training_device,
    training_precision,
)
from hybrid_seg_ros.training.initial_model import initial_model
from hybrid_seg_ros.training.narrow_model import fit_narrow_model
from hybrid_seg_ros.training.objective import KeptModels, Objective
from hybrid_seg_ros.training.run_folder import RunLog, RunState
from hybrid_seg_ros.training.terminal import Interruption, Progress
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError
from hybrid_seg_ros.training.weight_update import WeightUpdate, create_optimizer, update_average

log = logging.getLogger(__name__)

STATE = 'state.pt'
FITTED_VIEWS = 240
"""So many augmented images a narrow model is fitted to: four minutes on two cores for ViT-T from ViT-S."""
TORCHRUN_SIGNAL_S = 2.0
"""torchrun passes on a Ctrl-C that its processes have had already; within this time both are one request."""


def run_training(
    config: TrainConfig, root: Path, run_dir: Path, objective: Objective, until: Optional[int] = None,
    device: str = 'cpu', workers: Optional[int] = None,
) -> Optional[ModelSpec]:  # fmt: skip
    """Train, or go on with the run in `run_dir`; returns the spec of the finished model, None if stopped before.

    `until` stops after that many steps, ready to be resumed. `device` is `cpu`, `cuda` or `cuda:N`; `workers` threads
    prepare the batches (None: as many as suit the device).

    Writes `config.yaml`, `log.csv`, `tensorboard/`, `state.pt` (to resume) and, at each evaluation and at the end,
    `model.yaml` with its weights, `best.yaml` if it is the best so far, and a line of `evaluations.jsonl`. The first of
    several processes writes.

    Ctrl-C and SIGTERM finish the running step, save, and raise KeyboardInterrupt that says how to go on. Numbers that
    are not finite raise FloatingPointError with the last saved state kept; a failure in another process
    ProcessFailedError.
    """
    for name, count in (('until', until), ('workers', workers)):
        if count is not None and count < 1:
            raise TrainConfigError(f'{name}: expected a number >= 1, got {count}')
    device = training_device(device, config.precision)
    with joined_processes(device) as processes, contextlib.ExitStack() as stack:
        several = processes.count > 1
        interruption = stack.enter_context(Interruption(TORCHRUN_SIGNAL_S if several else 0.0, processes.is_first))
        with processes.together(), interruption.at_once():
            run_dir.mkdir(parents=True, exist_ok=True)
            train_set, val_set = open_datasets(config, root, check=processes.is_first)
            config = config.resolved(train_set.classes)
            spec = ModelSpec.from_dict(config.model)
            check_config(config, spec, objective)
            claim(config, run_dir, processes)
            config = dataclasses.replace(config, precision=training_precision(config.precision, device))
            train_views = None if (run_dir / STATE).is_file() else train_set
            state = create_state(config, spec, objective, processes, device, train_views)
            done = state.restore(run_dir / STATE)
        keeper = None
        if processes.is_first:
            run_log = RunLog(run_dir, done)
            stack.callback(run_log.close)
            keeper = KeptModels(run_dir, spec, config, objective, val_set, device, run_log)
            progress = Progress(config.steps, done)
            stack.callback(progress.close)

        def is_evaluated(step: int) -> bool:
            return step == config.steps or step % config.evaluate_every == 0

        def evaluate() -> None:
            with processes.together(), interruption.at_once():
                if keeper is not None:
                    keeper.evaluate(state.average, done)

        if done and is_evaluated(done):
            evaluate()  # unless it is written: a run that was killed in its evaluation makes up for it
        saved, end = done, config.steps if until is None else min(config.steps, until)
        steps = batches(train_set, done, end, config, spec.mean, processes, workers or default_workers(device))
        started_s = time.perf_counter()
        for step, step_batches in steps:
            try:
                losses = state.update(step_batches, step)
            except FloatingPointError as error:
                kept = f'the state after step {saved} is kept in {run_dir / STATE}' if saved else 'nothing is saved yet'
                raise FloatingPointError(f'{error}; {kept}') from error
            update_average(state.average, state.model, config.ema_decay, step)
            done = step + 1
            if keeper is not None:
                run_log.step(step, losses, time.perf_counter() - started_s)
                progress.step(done, losses)
            stop = processes.any(interruption.requested)
            if stop or done % config.save_every == 0 or done == end or is_evaluated(done):
                with processes.together():
                    if keeper is not None:
                        run_log.sync()
                        state.save(run_dir / STATE, done)
                saved = done
            if stop:
                raise KeyboardInterrupt(f'stopped after step {done} of {config.steps}, which is saved in '
                                        f'{run_dir / STATE}; the same command goes on')  # fmt: skip
            if is_evaluated(done):
                evaluate()
    return ModelSpec.load(run_dir / 'model.yaml') if done == config.steps else None


def open_datasets(config: TrainConfig, root: Path, check: bool) -> tuple[SegmentationDataset, SegmentationDataset]:
    """Open what to train on and what to validate on; with `check`, read all of it and raise for what is wrong.

    So it is to train on one class alone. Some that never occur are a warning.
    """
    train_set, val_set = (open_dataset(config.dataset, root, split) for split in ('train', 'val'))
    for split, dataset in (('train', train_set), ('val', val_set)) if check else ():
        report = check_dataset(dataset, description=f'check {split}')
        report.raise_for_problems(split)
        if split == 'train' and report.untaught():
            if len(dataset.classes) - len(report.absent) == 1:
                raise DatasetError(f'{split}: {report.untaught()}')
            log.warning('%s: %s', split, report.untaught())
    return train_set, val_set


def check_config(config: TrainConfig, spec: ModelSpec, objective: Objective) -> None:
    """Raise TrainConfigError or ModelSpecError for what only model and objective together can tell."""
    variants = [Variant.parse(name) for name in (*config.variants, config.evaluate_variant)]
    for variant in variants:
        spec.check_variant(variant)
    if any(variant.merges for variant in variants):  # an hour later is too late
        count_merged_windows(spec.backbone.grid_hw(spec.network_size_hw), spec.budget.windows)
    patch = spec.backbone.patch_size
    for name, side in (('patch_size', patch), ('loss_stride', config.loss_stride)):
        if any(length % side for length in config.crop_hw):  # masks would be stretched against their labels
            raise TrainConfigError(f'crop_hw: expected multiples of {name}, {side}, got {list(config.crop_hw)}')
    if spec.policy != 'none' and patch != POLICY_PATCH:
        raise TrainConfigError(f'model.policy: windows of 2x2 patches are 32 pixels wide: expected patch_size '
                               f'{POLICY_PATCH} or policy none, got patch_size {patch}')  # fmt: skip
    objective.metric(config)


def claim(config: TrainConfig, run_dir: Path, processes: Processes) -> None:
    """Write the resolved configuration; refuse a folder that holds a run of another one."""
    path = run_dir / 'config.yaml'
    if path.is_file() and (run_dir / STATE).is_file():
        before = TrainConfig.load(path)
        # `accumulate` may be traded for processes: RunState holds their product
        if dataclasses.replace(before, accumulate=config.accumulate) != config:
            changed = [f.name for f in dataclasses.fields(config) if getattr(before, f.name) != getattr(config, f.name)]
            raise TrainConfigError(
                f'{run_dir} holds a run with another configuration ({", ".join(changed)} differ); '
                'choose another folder or remove it'
            )
    if processes.is_first:
        config.save(path)


def create_state(
    config: TrainConfig, spec: ModelSpec, objective: Objective, processes: Processes, device: torch.device,
    train_set: Optional[SegmentationDataset],
) -> RunState:  # fmt: skip
    """Build the state that a run starts with; without `train_set` no model is fitted, as a saved state replaces it."""
    model = initial_model(spec, config)
    if config.narrowed_from is not None and train_set is not None:
        source = load_model(ModelSpec.load(config.narrowed_from))
        numbers = range(-(-FITTED_VIEWS // config.batch_size))
        views = [build_batch(train_set.__getitem__, len(train_set), number, config, spec.mean) for number in numbers]
        images = torch.cat([batch.images for batch in views]).to(device)
        fit_narrow_model(model.to(device), source.to(device), images)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and objective.trained(name))
    model = prepare_model(model, device)
    optimizer = create_optimizer(model, config)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    update = WeightUpdate(model, objective.losses, optimizer, config, processes, device)
    return RunState(model, average, optimizer, update, config.accumulate * processes.count)
