"""What is trained, and what stays as it is: policy networks alone, light heads and refined masks, frozen parts."""

import torch
from tiny_model import tiny_spec
from tiny_training import log_rows, run_arguments, tiny_config, write_dataset

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.model_spec import POLICIES, ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model
from hybrid_seg_ros.network.efficientnet_lite import EfficientNetLite0
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.initial_model import keep_evaluation_mode, load_imagenet_trunk


def test_every_policy_is_trained_alone_and_by_a_teacher(tmp_path):
    """Alone, by a teacher of another kind, and by one of the third; all else, ImageNet's statistics too, stays."""
    root = write_dataset(tmp_path / 'data', train=2, val=1)
    tiny_config(steps=3, ema_decay=0.0).save(tmp_path / 'train.yaml')
    policies = [name for name in POLICIES if name != 'none']
    weights = []
    for number, policy in enumerate(policies):
        arguments = run_arguments(tmp_path / 'train.yaml', root, tmp_path / policy)
        changes = ['model.refinement=image', 'model.window_sizes=[2, 4]', f'model.policy={policy}']
        if weights:
            teacher = tmp_path / policies[number - 1] / 'model.yaml'
            changes += ['reinitialize=[policy]', f'initial_model={teacher}', 'seed=5', f'teacher={teacher}',
                        'distillation_weight=2.0']  # fmt: skip
        assert main(['train-policy', *arguments, *(word for change in changes for word in ('--set', change))]) == 0
        rows = log_rows(tmp_path / policy)
        assert 'policy' in rows[0] and ('distillation' in rows[0]) == bool(weights)
        assert rows[0]['loss'] != rows[-1]['loss']
        weights.append(load_model(ModelSpec.load(tmp_path / policy / 'model.yaml')).state_dict())
    trunk = EfficientNetLite0()
    load_imagenet_trunk(trunk)
    same = {name: torch.equal(value.half(), weights[0][f'policy.backbone.{name}'].half())
            for name, value in trunk.state_dict().items() if value.is_floating_point()}  # fmt: skip
    assert all(same[name] for name in same if 'running_' in name) and not same['conv_stem.weight']
    for others in weights[1:]:
        for name, value in weights[0].items():
            assert name.startswith('policy.') or torch.equal(value, others[name]), name


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
             'window_sizes': [2, 4], 'policy': 'efficientnet_lite0'}  # fmt: skip
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
