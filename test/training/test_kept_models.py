"""model.yaml is the last model, best.yaml the best one; an evaluation that a stop cut off is made up for."""

import json

import pytest
import torch
from camvid_folder import write_camvid_folder
from tiny_training import tiny_config

from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.training import train_segmenter
from hybrid_seg_ros.training.run_folder import RunLog
from hybrid_seg_ros.training.run_loop import run_training
from hybrid_seg_ros.training.stage import EvaluationReport, Stage
from hybrid_seg_ros.training.train_config import TrainConfigError
from hybrid_seg_ros.training.train_segmenter import train_losses


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=3, val=1)


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

    def stage(self):
        return Stage(train_losses, self, ('quality', 'errors'), 'quality')


def query_of(path):
    return load_model(ModelSpec.load(path)).state_dict()['head.query.weight']


def steps_of(run_dir):
    return [json.loads(line)['step'] for line in (run_dir / 'evaluations.jsonl').read_text().splitlines()]


@pytest.mark.parametrize('metric, best', [(None, 1), ('errors', 0), ('-quality', 0)])
def test_the_best_stays_and_the_last_follows(root, tmp_path, metric, best):
    evaluations = Evaluations(1.0, 3.0, float('nan'), 2.0)
    config = tiny_config(steps=4, evaluate_every=1, best_metric=metric)
    run_training(config, root, tmp_path, evaluations.stage())
    half = [shown.half().float() for shown in evaluations.shown]
    assert torch.equal(query_of(tmp_path / 'best.yaml'), half[best])
    assert torch.equal(query_of(tmp_path / 'model.yaml'), half[3])
    assert not torch.equal(half[best], half[3])


def test_no_number_is_never_the_best_and_null_in_json(root, tmp_path):
    evaluations = Evaluations(float('nan'), 1.0, float('nan'))
    run_training(tiny_config(steps=3, evaluate_every=1), root, tmp_path, evaluations.stage())
    assert torch.equal(query_of(tmp_path / 'best.yaml'), evaluations.shown[1].half().float())
    lines = (tmp_path / 'evaluations.jsonl').read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)['quality'] for line in lines] == [None, 1.0, None]
    run_log = RunLog(tmp_path, 3)
    assert run_log.best('quality') == 1.0 and run_log.best('-errors') == 1.0
    run_log.close()


def test_an_evaluation_that_was_cut_off_is_made_up_for(root, tmp_path):
    config = tiny_config(steps=4, evaluate_every=2, save_every=100)
    with pytest.raises(KeyboardInterrupt):
        run_training(config, root, tmp_path, Evaluations(None).stage())
    assert torch.load(tmp_path / 'state.pt', weights_only=True)['step'] == 2
    assert not (tmp_path / 'evaluations.jsonl').exists()
    run_training(config, root, tmp_path, Evaluations(1.0, 2.0).stage())
    assert steps_of(tmp_path) == [2, 4]


def test_a_finished_run_is_not_evaluated_again(root, tmp_path):
    config = tiny_config(steps=2)
    spec = run_training(config, root, tmp_path, Evaluations(1.0).stage())
    assert run_training(config, root, tmp_path, Evaluations().stage()) == spec
    assert steps_of(tmp_path) == [2]


def test_an_unknown_metric_is_refused(root, tmp_path):
    with pytest.raises(TrainConfigError, match="unknown 'iou'; legal are miou, pixel_accuracy, with a minus"):
        train_segmenter.train(tiny_config(best_metric='iou'), root, tmp_path)
