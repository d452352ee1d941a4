"""The three training commands, one after the other, on a small dataset of one's own."""

import json

import pytest
import torch
from tiny_model import tiny_spec
from tiny_training import OWN_DATASETS, log_rows, run_arguments, tiny_config, write_dataset

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.cli import main
from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.model_spec import POLICIES, ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.initial_model import keep_evaluation_mode


@pytest.mark.parametrize('dataset', OWN_DATASETS)
def test_policy_then_dense_then_pruning(dataset, tmp_path, capsys):
    root = write_dataset(tmp_path / 'data', train=3, val=2)
    fixed = ('policy',)

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

    assert moved(policy, dense) == {'encoder', 'auxiliary_heads', 'head'}
    assert moved(dense, pruned) == {'encoder', 'auxiliary_heads', 'head'}
    sample = open_dataset(dataset, root, 'val')[0]
    result = load_pipeline(tmp_path / 'pruned' / 'best.yaml', 'pytorch', 'cpu', variant='hybrid@8')(sample.image)
    assert result.labels.shape == sample.labels.shape
    assert 'model written to' in capsys.readouterr().out


@pytest.mark.parametrize('policy', [name for name in POLICIES if name != 'none'])
def test_every_policy_is_trained_alone_and_by_a_teacher(policy, tmp_path):
    root = write_dataset(tmp_path / 'data', train=2, val=1)
    config = tiny_config(steps=3, ema_decay=0.0, trunk_factor=1.0)
    config.save(tmp_path / 'train.yaml')

    def run(name, *changes):
        arguments = run_arguments(tmp_path / 'train.yaml', root, tmp_path / name)
        for change in ('model.refinement=image', 'model.window_sizes=[2, 4]', f'model.policy={policy}', *changes):
            arguments += ['--set', change]
        assert main(['train-policy', *arguments]) == 0
        return load_model(ModelSpec.load(tmp_path / name / 'model.yaml')).state_dict()

    first = run('first')
    kept = ['reinitialize=[policy]', f'initial_model={tmp_path / "first" / "model.yaml"}', 'seed=5']
    taught = run('taught', *kept, f'teacher={tmp_path / "first" / "model.yaml"}', 'distillation_weight=2.0')
    moved = {name for name in first if not torch.equal(first[name], taught[name])}
    assert moved and all(name.startswith('policy.') for name in moved)
    assert {'policy', 'distillation'} <= set(log_rows(tmp_path / 'taught')[0])
    assert 'distillation' not in log_rows(tmp_path / 'first')[0]


def weights_after_one_step_and_all(config, root, folder):
    """Train in `folder` / run; return the state dicts after the first step and at the end."""
    config.save(folder / 'train.yaml')
    arguments = run_arguments(folder / 'train.yaml', root, folder / 'run')
    weights = []
    for until in (['--until', '1'], []):
        assert main(['train', *arguments, *until]) == 0
        weights.append(torch.load(folder / 'run' / 'state.pt', weights_only=True)['model'])
    return weights


def test_light_heads_and_refined_masks_are_trained(tmp_path):
    root = write_dataset(tmp_path / 'data', train=2, val=1)
    model = {**tiny_config().model, 'head': 'light', 'auxiliary_head': 'light', 'refinement': 'image',
             'window_sizes': [2, 4]}  # fmt: skip
    config = tiny_config(model=model, steps=4, ema_decay=0.0, distillation_weight=1.0, variants=('hybrid@6+8',),
                         atm_weight=0.0, layer_decay=0.8, entering_share=(0.3, 0.9), keep_share=(0.3, 0.9))  # fmt: skip
    before, after = weights_after_one_step_and_all(config, root, tmp_path)
    assert {'layer6', 'layer8', 'layer12', 'refined', 'policy'} <= set(log_rows(tmp_path / 'run')[0])
    unmoved = {name for name, value in before.items() if torch.equal(value, after[name])}
    kept = {name for name in before if 'policy.backbone.' in name and ('running_' in name or 'num_batches' in name)}
    assert unmoved == kept, 'the statistics of ImageNet stay, and nothing else'


def test_a_frozen_part_stays_as_it_is(tmp_path):
    """Also the running mean and variance of its batch norms."""
    root = write_dataset(tmp_path / 'data', train=2, val=1)
    model = {**tiny_config().model, 'refinement': 'image', 'policy': 'half_size'}
    frozen = ('encoder', 'head', 'policy', 'refinement')
    config = tiny_config(model=model, steps=3, ema_decay=0.0, variants=('cts',), freeze=frozen)
    before, after = weights_after_one_step_and_all(config, root, tmp_path)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith('auxiliary_heads.') for name in moved)


def test_what_is_frozen_is_not_noisy():
    """Heads that are trained on a frozen network see what they will see later: no dropout, no stochastic depth."""
    model = HybridSegmenter(tiny_spec(auxiliary_head='light'), drop_path=0.5)
    model.requires_grad_(False)
    model.auxiliary_heads.requires_grad_(True)
    model.train()
    keep_evaluation_mode(model)
    training = {name.split('.')[0] for name, module in model.named_modules() if name and module.training}
    assert training == {'auxiliary_heads'}
    images = torch.randn(2, 3, 64, 96)
    outputs = [model(images, Variant.parse('cts'), model.spec.budget, supervise=True).scores for _ in range(2)]
    assert torch.equal(*outputs)
