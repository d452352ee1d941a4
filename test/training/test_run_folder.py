"""log.csv, evaluations.jsonl and TensorBoard: nothing twice, nothing lost, after any stop."""

import json
import logging
import sys
import time

import numpy as np
import pytest

from hybrid_seg_ros.training.run_folder import RunLog, metric_value


def evaluate(log, done, miou):
    log.evaluation(done, {'variant': 'dense', 'miou': miou})


def steps_of(run_dir):
    return [line.split(',')[0] for line in (run_dir / 'log.csv').read_text().splitlines()[1:]]


def test_what_a_kill_left_too_much_is_taken_off(tmp_path):
    log = RunLog(tmp_path, 0)
    for step in range(6):
        log.step(step, {'loss': step / 2}, 0.1)
        evaluate(log, step + 1, 50.0 + step)
    log.close()
    with open(tmp_path / 'log.csv', 'a') as stream:
        stream.write('1,0.')  # half a row, of step 17
    with open(tmp_path / 'evaluations.jsonl', 'a') as stream:
        stream.write('{"step": 1')
    again = RunLog(tmp_path, 4)
    assert steps_of(tmp_path) == ['0', '1', '2', '3']
    lines = [json.loads(line) for line in (tmp_path / 'evaluations.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == [1, 2, 3, 4]
    assert again.is_evaluated(4) and not again.is_evaluated(5)
    assert again.best('miou') == 53.0 and again.best('-miou') == -50.0
    again.step(4, {'loss': 2.0}, 0.1)
    again.sync()
    assert steps_of(tmp_path) == ['0', '1', '2', '3', '4']
    again.close()


def test_a_log_without_a_whole_line_starts_anew(tmp_path):
    (tmp_path / 'log.csv').write_text('step,lo')
    log = RunLog(tmp_path, 0)
    log.step(0, {'loss': 1.0}, 0.5)
    assert (tmp_path / 'log.csv').read_bytes() == b'step,loss,seconds\n0,1.0,0.5\n'
    log.close()


def test_a_loss_that_comes_later_gets_its_column(tmp_path):
    log = RunLog(tmp_path, 0)
    log.step(0, {'loss': 1.0}, 0.1)
    log.step(1, {'loss': 2.0, 'policy': 3.0}, 0.2)
    log.step(2, {'loss': 4.0}, 0.3)
    assert (tmp_path / 'log.csv').read_text().split() == [
        'step,loss,seconds,policy', '0,1.0,0.1,', '1,2.0,0.2,3.0', '2,4.0,0.3,']
    log.close()


def test_a_number_that_is_none_is_never_the_best(tmp_path):
    log = RunLog(tmp_path, 0)
    assert log.best('miou') is None
    evaluate(log, 1, float('nan'))
    assert log.best('miou') is None
    evaluate(log, 2, 10.0)
    assert log.best('miou') == 10.0
    log.close()


def test_lower_is_better_with_a_minus():
    assert metric_value({'wrongly_merged': 2.5}, '-wrongly_merged') == -2.5


def test_tensorboard_has_losses_numbers_and_pictures(tmp_path):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    log = RunLog(tmp_path, 0)
    for step in range(5):
        log.step(step, {'loss': float(step), 'learning_rate': 0.1}, 0.1)
        if step == 2:
            log.evaluation(3, {'variant': 'dense', 'miou': 40.0})
    log.close()
    time.sleep(1 - time.time() % 1)  # TensorBoard sorts files by second; then as text, the process' 10th before its 9th
    log = RunLog(tmp_path, 3)
    log.step(3, {'loss': 30.0, 'learning_rate': 0.1}, 0.1)
    picture = np.zeros((8, 24, 3), np.uint8)
    log.evaluation(4, {'variant': 'dense', 'miou': 50.0}, [('street', picture)])
    log.close()
    events = accumulator.EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
    assert set(events.Tags()['scalars']) == {'train/loss', 'train/learning_rate', 'evaluation/miou'}
    assert [(event.step, event.value) for event in events.Scalars('train/loss')] == [(1, 0), (2, 1), (3, 2), (4, 30)]
    assert [(event.step, event.value) for event in events.Scalars('evaluation/miou')] == [(3, 40), (4, 50)]
    assert events.Images('evaluation/street')[0].width == 24


def test_without_tensorboard_a_line_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    with caplog.at_level(logging.INFO):
        log = RunLog(tmp_path, 0)
    log.step(0, {'loss': 1.0}, 0.1)
    log.close()
    assert [record.getMessage() for record in caplog.records] == [
        'TensorBoard is not installed (pip install tensorboard): log.csv and evaluations.jsonl are written']
    assert steps_of(tmp_path) == ['0'] and not (tmp_path / 'tensorboard').exists()
