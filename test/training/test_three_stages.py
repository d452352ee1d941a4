"""The three training commands, one after the other, on a small dataset of one's own."""

import json

import pytest
import torch
from tiny_training import OWN_DATASETS, run_arguments, tiny_config, write_dataset

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.cli import main
from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.network.checkpoint import load_model


@pytest.mark.parametrize('dataset', OWN_DATASETS)
def test_policy_then_dense_then_pruning(dataset, tmp_path, capsys):
    root = write_dataset(tmp_path / 'data', train=3, val=2)
    fixed = ('policy', 'trunk')

    def run(command, name, **changes):
        config = tiny_config(**{'dataset': dataset, 'steps': 6, 'policy_weight': 0.0, 'ema_decay': 0.0, **changes})
        config.save(tmp_path / f'{name}.yaml')
        assert main([command, *run_arguments(tmp_path / f'{name}.yaml', root, tmp_path / name)]) == 0
        lines = (tmp_path / name / 'evaluations.jsonl').read_text().splitlines()
        return load_model(ModelSpec.load(tmp_path / name / 'model.yaml')).state_dict(), json.loads(lines[-1])

    policy, judged = run('train-policy', 'policy', augmentation='stretch', variants=('dense',), learning_rate=1e-3)
    assert set(judged) == {'step', 'accuracy', 'wrongly_merged'}
    dense, evaluated = run('train', 'dense', initial_model=str(tmp_path / 'policy' / 'model.yaml'),
                           variants=('dense',), freeze=fixed)  # fmt: skip
    assert evaluated['variant'] == 'dense' and 0 <= evaluated['miou'] <= 100
    pruned, evaluated = run('train', 'pruned', initial_model=str(tmp_path / 'dense' / 'model.yaml'),
                            variants=('hybrid@8',), evaluate_variant='hybrid@8', freeze=fixed)  # fmt: skip
    assert evaluated['variant'] == 'hybrid@8'

    def moved(first, second):
        return {name.split('.')[0] for name in first if not torch.equal(first[name], second[name])}

    assert moved(policy, dense) == {'encoder', 'auxiliary_heads', 'head', 'stem'}
    assert moved(dense, pruned) == {'encoder', 'auxiliary_heads', 'head', 'stem'}
    sample = open_dataset(dataset, root, 'val')[0]
    result = load_pipeline(tmp_path / 'pruned' / 'best.yaml', variant='hybrid@8')(sample.image)
    assert result.labels.shape == sample.labels.shape
    assert 'model written to' in capsys.readouterr().out
