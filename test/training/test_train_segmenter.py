"""A short training run on a made-up data set: it learns, and it can be stopped and resumed at any step."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_model import tiny_spec

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.training import train_segmenter
from hybrid_seg_ros.training.batches import build_batch, sample_indices
from hybrid_seg_ros.training.schedule import learning_rate_factor
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError

STEPS = 12


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=3, val=1)


def config(**changes):
    spec = tiny_spec(input_size_hw=(64, 96), variant=Variant(), budget=TokenBudget(threshold=0.9)).to_dict()
    fields = {
        'model': spec, 'crop_hw': (64, 64), 'scale': (0.9, 1.1), 'batch_size': 2, 'steps': STEPS,
        'learning_rate': 3e-3, 'trunk_factor': 0.1, 'head_factor': 1.0, 'warmup_steps': 2, 'ema_decay': 0.9,
        'variants': ('dense', 'hybrid@6+8'), 'pixel_weight': 1.0, 'policy_weight': 1.0, 'precision': 'float32',
        'evaluate_every': 100, 'save_every': 5, 'loss_stride': 2,
    }  # fmt: skip
    return TrainConfig(**{**fields, **changes})


def rows(run_dir):
    with open(run_dir / 'log.csv', newline='', encoding='utf-8') as stream:
        return [{name: value for name, value in row.items() if name != 'seconds'} for row in csv.DictReader(stream)]


@pytest.fixture(scope='module')
def finished(root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp('run')
    train_segmenter.train(config(), root, run_dir)
    return run_dir


def test_the_loss_falls(finished):
    losses = [float(row['loss']) for row in rows(finished)]
    assert len(losses) == STEPS and np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert {'layer6', 'layer8', 'layer12', 'policy'} <= set(rows(finished)[0])


def test_the_finished_model_runs(finished):
    result = load_pipeline(finished / 'model.yaml', variant='hybrid@6+8')(np.zeros((64, 96, 3), np.uint8))
    assert result.labels.shape == (64, 96)
    assert TrainConfig.load(finished / 'config.yaml') == config()
    assert len((finished / 'evaluations.jsonl').read_text().splitlines()) == 1


def test_a_resumed_run_is_the_uninterrupted_one(root, finished, tmp_path):
    assert train_segmenter.train(config(), root, tmp_path, until=7) is None
    assert len(rows(tmp_path)) == 7
    train_segmenter.train(config(), root, tmp_path)
    assert rows(tmp_path) == rows(finished)
    states = [torch.load(folder / 'state.pt', weights_only=True) for folder in (tmp_path, finished)]
    for part in ('model', 'average'):
        assert all(torch.equal(states[0][part][name], value) for name, value in states[1][part].items())


@pytest.mark.parametrize(
    'broken',
    ['loss', 'gradient'],
)
def test_what_is_not_finite_keeps_the_last_good_state(root, tmp_path, monkeypatch, broken):
    """An infinite gradient of a finite loss is as bad as a loss that is not finite."""
    exact, calls = train_segmenter.segmentation_losses, []

    def losses(output, *rest):
        result = exact(output, *rest)
        calls.append(None)
        if len(calls) == 6:
            weight = torch.zeros(()) if broken == 'gradient' else torch.tensor(float('nan'))
            extra = (output.stages[-1].mask_logits.sum() * weight).abs()
            result['layer12'] = result['layer12'] + (extra.sqrt() if broken == 'gradient' else extra)
        return result

    monkeypatch.setattr(train_segmenter, 'segmentation_losses', losses)
    with pytest.raises(FloatingPointError, match='step 5'):
        train_segmenter.train(config(save_every=1), root, tmp_path)
    state = torch.load(tmp_path / 'state.pt', weights_only=True)
    assert state['step'] == 5
    assert all(value.isfinite().all() for value in state['model'].values() if value.is_floating_point())


def test_a_folder_with_another_run_is_refused(root, finished):
    with pytest.raises(TrainConfigError, match='another configuration'):
        train_segmenter.train(config(learning_rate=1e-3), root, finished)


def test_other_classes_are_refused(root, tmp_path):
    model = {**config().model, 'classes': [{'name': 'thing'}]}
    with pytest.raises(TrainConfigError, match='or those of camvid'):
        train_segmenter.train(config(model=model), root, tmp_path)


def test_each_epoch_sees_every_sample_once():
    seen = [index for step in range(6) for index in sample_indices(step, 2, 4, seed=3)]
    assert [sorted(seen[start : start + 4]) for start in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
    assert seen[:4] != seen[4:8] or seen[4:8] != seen[8:]


def test_a_batch_is_a_function_of_seed_and_step(root):
    dataset = train_segmenter.open_dataset('camvid', root, 'train')
    first, again, other = (build_batch(dataset.__getitem__, 3, step, config(), (9.0, 9.0, 9.0)) for step in (4, 4, 5))
    images, labels, policy = first.images, first.labels, first.policy_labels
    assert torch.equal(images, again.images) and torch.equal(labels, again.labels) and first.names == again.names
    assert not torch.equal(images, other.images)
    assert images.shape == (2, 64, 64, 3) and labels.shape == (2, 64, 64) and policy.shape == (2, 2, 2)
    assert set(labels.unique().tolist()) <= {0, 3, 255}


def test_learning_rate():
    schedule = dataclasses.replace(config(), warmup_steps=4, steps=104, poly_power=1.0)
    factors = [learning_rate_factor(step, schedule) for step in range(105)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[54] == pytest.approx(0.5) and factors[104] == 0
    assert all(a >= b for a, b in zip(factors[4:], factors[5:]))
    assert learning_rate_factor(0, dataclasses.replace(schedule, warmup_steps=0)) == 1.0
