"""A run that is stopped or killed goes on as if nothing had happened, and keeps the last model and the best."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_training import ENVIRONMENT, ROOT, TIMEOUT_S, log_rows, run_arguments, same_state, tiny_config

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.training import train_segmenter
from hybrid_seg_ros.training.objective import EvaluationReport, KeptModels, Objective
from hybrid_seg_ros.training.run_folder import RunLog
from hybrid_seg_ros.training.run_loop import run_training
from hybrid_seg_ros.training.train_config import TrainConfigError
from hybrid_seg_ros.training.train_segmenter import train_losses

KILLED = """
import io, os, signal, sys, torch
from hybrid_seg_ros import cli
from hybrid_seg_ros.training import run_folder, train_segmenter

losses, whole, saved = train_segmenter.train_losses, torch.save, []

def losses_of_all_steps_but_one(model, batch, step, *others, **more):
    if step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return losses(model, batch, step, *others, **more)

def save_half(content, stream):
    saved.append(content['step'])
    if len(saved) < 2:
        return whole(content, stream)
    buffer = io.BytesIO()
    whole(content, buffer)
    stream.write(buffer.getvalue()[: buffer.tell() // 2])
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == 'step':
    train_segmenter.train_losses = losses_of_all_steps_but_one
else:
    run_folder.torch.save = save_half
sys.exit(cli.main(sys.argv[2:]))
"""
REFINED = {'head': 'light', 'auxiliary_head': 'light', 'refinement': 'image', 'policy': 'half_size'}
"""As the shipped model's: it has batch norms whose statistics are part of the state."""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=3, val=1)


def config():
    return tiny_config(model={**tiny_config().model, **REFINED}, steps=16, evaluate_every=6, save_every=4)


@pytest.fixture(scope='module')
def uninterrupted(root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp('uninterrupted')
    train_segmenter.train(config(), root, run_dir)
    return run_dir


@pytest.fixture
def argv(root, tmp_path):
    """Return the arguments of the command; the run is in tmp_path / run."""
    config().save(tmp_path / 'config.yaml')
    return ['train', *run_arguments(tmp_path / 'config.yaml', root, tmp_path / 'run')]


def assert_same_run(run_dir, expected):
    assert log_rows(run_dir) == log_rows(expected)
    assert same_state(run_dir / 'state.pt', expected / 'state.pt')
    assert (run_dir / 'evaluations.jsonl').read_text() == (expected / 'evaluations.jsonl').read_text()
    for name in ('model.yaml', 'best.yaml'):
        weights, same = (load_model(ModelSpec.load(folder / name)).state_dict() for folder in (run_dir, expected))
        assert all(torch.equal(value, same[key]) for key, value in weights.items()), name


def saved_step(run_dir):
    return torch.load(run_dir / 'state.pt', weights_only=True)['step']


def test_a_run_that_was_killed_in_a_step_and_while_saving(uninterrupted, argv, tmp_path):
    run_dir = tmp_path / 'run'
    for where, steps, logged in (('step', 6, 7), ('save', 8, 12)):
        done = subprocess.run([sys.executable, '-c', KILLED, where, *argv, '--threads', '1'], cwd=ROOT, env=ENVIRONMENT,
                              capture_output=True, text=True, timeout=TIMEOUT_S)  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert saved_step(run_dir) == steps and len(log_rows(run_dir)) == logged
    assert (run_dir / 'state.pt.partial').stat().st_size > 0
    assert main(argv) == 0
    assert_same_run(run_dir, uninterrupted)


def test_a_run_that_was_told_to_stop(uninterrupted, argv, tmp_path, monkeypatch, capfd):
    """By --until; by SIGTERM in its fifth step, which is finished and saved; by two signals in the tenth, at once."""
    run_dir = tmp_path / 'run'
    assert main([*argv, '--until', '3']) == 0 and saved_step(run_dir) == 3
    assert 'stopped after step 3; the same command without --until goes on' in capfd.readouterr().out
    assert not (run_dir / 'model.yaml').exists()
    exact = train_segmenter.train_losses

    def signalled(at, *signals):
        def losses(model, batch, step, *others, **more):
            for number in signals if step == at else ():
                os.kill(os.getpid(), number)
            return exact(model, batch, step, *others, **more)

        monkeypatch.setattr(train_segmenter, 'train_losses', losses)

    signalled(4, signal.SIGTERM)
    assert main(argv) == 130
    said = capfd.readouterr().err
    assert f'stopped after step 5 of 16, which is saved in {run_dir}/state.pt; the same command goes on' in said
    assert 'once more to stop at once' in said and 'Traceback' not in said
    assert saved_step(run_dir) == len(log_rows(run_dir)) == 5
    signalled(9, signal.SIGINT, signal.SIGINT)
    assert main(argv) == 130
    said = capfd.readouterr().err
    assert 'stopped at once; the same command goes on from the last saved state' in said and 'Traceback' not in said
    assert saved_step(run_dir) == 8 and len(log_rows(run_dir)) == 9
    signalled(-1)
    assert main(argv) == 0 and f'model written to {run_dir}/model.yaml' in capfd.readouterr().out
    assert_same_run(run_dir, uninterrupted)


def test_a_damaged_state_is_named(uninterrupted, root, tmp_path):
    for name in ('config.yaml', 'state.pt'):
        (tmp_path / name).write_bytes((uninterrupted / name).read_bytes()[:5000])
    with pytest.raises(TrainConfigError, match=r'state\.pt: damaged'):
        train_segmenter.train(config(), root, tmp_path)


class Evaluations:
    """Says what it is told, and keeps what it was shown; None stands for Ctrl-C in the middle of it."""

    def __init__(self, *answers):
        self.answers, self.shown = list(answers), []

    def __call__(self, model, spec, val_set, config, device):
        answer = self.answers.pop(0)
        if answer is None:
            raise KeyboardInterrupt
        self.shown.append(model.state_dict()['head.query.weight'].clone())
        return EvaluationReport({'quality': answer, 'errors': -answer})

    def objective(self):
        return Objective(train_losses, self, ('quality', 'errors'), 'quality')


@pytest.mark.parametrize('metric, best', [(None, 1), ('errors', 0), ('-quality', 0)])
def test_the_best_stays_and_the_last_follows(tmp_path, metric, best):
    """What is no number is never the best, and null in the JSON."""
    nan = float('nan')
    evaluations, run_log = Evaluations(1.0, 3.0, nan, 2.0), RunLog(tmp_path, 0)
    settings = tiny_config(best_metric=metric)
    spec = ModelSpec.from_dict({**settings.model, 'classes': [{'name': 'a'}, {'name': 'b'}]})
    kept = KeptModels(tmp_path, spec, settings, evaluations.objective(), None, torch.device('cpu'), run_log)
    model = train_segmenter.HybridSegmenter(spec)
    for done in range(1, 5):
        torch.nn.init.constant_(model.head.query.weight, done)
        kept.evaluate(model.state_dict(), done)
        kept.evaluate(model.state_dict(), done)  # again after a stop: it is written
    run_log.close()
    assert [shown.mean().item() for shown in evaluations.shown] == [1, 2, 3, 4]
    for name, step in (('best', best + 1), ('model', 4)):
        weights = load_model(ModelSpec.load(tmp_path / f'{name}.yaml')).state_dict()
        assert (weights['head.query.weight'] == step).all(), name
    lines = [json.loads(line, parse_constant=pytest.fail)
             for line in (tmp_path / 'evaluations.jsonl').read_text().splitlines()]  # fmt: skip
    assert [(line['step'], line['quality']) for line in lines] == [(1, 1.0), (2, 3.0), (3, None), (4, 2.0)]
    run_log = RunLog(tmp_path, 3)
    assert run_log.best('quality') == 3.0 and run_log.best('-errors') == 3.0
    run_log.close()


def test_an_evaluation_that_was_cut_off_is_made_up_for_and_done_once(root, tmp_path):
    settings = tiny_config(steps=4, evaluate_every=2, save_every=100)
    with pytest.raises(KeyboardInterrupt):
        run_training(settings, root, tmp_path, Evaluations(None).objective())
    assert saved_step(tmp_path) == 2 and not (tmp_path / 'evaluations.jsonl').exists()
    spec = run_training(settings, root, tmp_path, Evaluations(1.0, 2.0).objective())
    assert run_training(settings, root, tmp_path, Evaluations().objective()) == spec, 'finished: not evaluated again'
    lines = (tmp_path / 'evaluations.jsonl').read_text().splitlines()
    assert [json.loads(line)['step'] for line in lines] == [2, 4]
