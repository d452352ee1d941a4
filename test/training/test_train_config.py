"""Training configurations: every shipped one builds its model, and what is wrong with one is named."""

import functools
import re
from pathlib import Path

import pytest
import torch
import yaml
from tiny_training import ROOT, tiny_config

from hybrid_seg_ros.data.camvid import CAMVID_CLASSES
from hybrid_seg_ros.label_space import LabelSpace, distinct_colors
from hybrid_seg_ros.model_spec import ModelSpec, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError, is_under
from hybrid_seg_ros.training.weight_update import create_optimizer, learning_rate_factor

FILES = sorted((ROOT / 'config').glob('train_*.yaml'))
ADE20K = {f'train_ade20k_vit_{size}{stage}.yaml' for size in ('base', 'tiny') for stage in ('_policy', '', '_pruning')}
NUM_CLASSES = {'ade20k': 150, 'folder': 7}


def classes_of(config):
    """Return classes as many as the dataset has; those that the file lists, if it does."""
    if config.model['classes'] != 'dataset':
        return LabelSpace.from_entries(config.model['classes'])
    if config.dataset == 'camvid':
        return CAMVID_CLASSES
    count = NUM_CLASSES.get(config.dataset, 5)
    return LabelSpace(tuple(f'class {index}' for index in range(count)), distinct_colors(count))


@functools.cache
def shapes(path):
    config = TrainConfig.load(path)
    with torch.device('meta'):  # shapes without numbers
        model = HybridSegmenter(ModelSpec.from_dict(config.resolved(classes_of(config)).model), config.drop_path)
    assert create_optimizer(model, config).param_groups
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_shipped_configuration_builds_its_model(path):
    config = TrainConfig.load(path)
    spec = ModelSpec.from_dict(config.resolved(classes_of(config)).model)
    for variant in (*config.variants, config.evaluate_variant):
        spec.check_variant(Variant.parse(variant))
    last, width = ('classify', spec.backbone.embed_dim) if spec.head == 'light' else ('query', spec.decoder_dim)
    assert shapes(path)[f'head.{last}.weight'] == (len(spec.classes), width)
    assert learning_rate_factor(config.warmup_steps, config) == 1.0


@pytest.mark.parametrize('name', sorted(ADE20K - {f'train_ade20k_vit_{s}_policy.yaml' for s in ('base', 'tiny')}))
def test_a_stage_starts_from_the_model_of_the_one_before(name):
    path = ROOT / 'config' / name
    before = Path(TrainConfig.load(path).initial_model).parent.name
    assert shapes(ROOT / 'config' / f'train_{before}.yaml') == shapes(path)


def test_settings_of_the_papers():
    base, policy = (TrainConfig.load(ROOT / 'config' / f'train_ade20k_vit_base{end}.yaml') for end in ('', '_policy'))
    assert (base.learning_rate, base.weight_decay, base.head_factor, base.batch_size) == (2e-5, 0.01, 10, 16)
    assert learning_rate_factor(0, base) == 1e-6
    assert learning_rate_factor(1500 + (160_000 - 1500) // 2, base) == pytest.approx(0.5**0.9)
    assert (policy.learning_rate, policy.weight_decay, policy.batch_size, policy.steps) == (5e-5, 1e-3, 8, 50_000)
    assert policy.augmentation == 'stretch' and learning_rate_factor(49_999, policy) == 1.0


def test_saved_configuration_is_read_back(tmp_path):
    config = tiny_config(freeze=('policy',), fit_sides=(64, 256), warmup_factor=0.1, accumulate=3)
    config.save(tmp_path / 'config.yaml')
    assert TrainConfig.load(tmp_path / 'config.yaml') == config
    assert not list(tmp_path.glob('*.partial'))


def test_classes_of_the_dataset_are_written_out():
    classes = LabelSpace(('floor', 'wall'), ((1, 2, 3), (4, 5, 6)))
    resolved = tiny_config().resolved(classes)
    assert ModelSpec.from_dict(resolved.model).classes == classes
    assert resolved.resolved(classes) == resolved
    for other in ([{'name': 'thing'}], None):
        with pytest.raises(TrainConfigError, match="'dataset' or those of camvid"):
            tiny_config(model={**resolved.model, 'classes': other}).resolved(classes)


@pytest.mark.parametrize(
    'change, complaint',
    [
        ({'batch_size': 0}, 'batch_size: expected an integer >= 1, got 0'),
        ({'accumulate': 1.5}, 'accumulate: expected an integer >= 1, got 1.5'),
        ({'precision': 'fp8'}, "precision: unknown 'fp8'; legal are auto, float32, bfloat16, float16"),
        ({'augmentation': 'mixup'}, "augmentation: unknown 'mixup'; legal are crop, stretch"),
        ({'learning_rate': 0}, 'learning_rate: expected a number > 0'),
        ({'clip_norm': 0}, 'clip_norm: expected a number > 0'),
        ({'warmup_factor': 2}, 'warmup_factor: expected a number from 0 to 1'),
        ({'betas': [0.9]}, 'betas: expected two numbers'),
        ({'betas': [0.9, 1.0]}, 'betas: expected two numbers'),
        ({'scale': [2, 1]}, 'scale: expected [low, high]'),
        ({'fit_sides': [512]}, 'fit_sides: expected [short, long]'),
        ({'crop_hw': [512]}, 'crop_hw: expected [height, width]'),
        ({'freeze': 'policy'}, "freeze: expected a list, got 'policy'"),
        ({'reinitialize': ['head']}, 'reinitialize: expected only together with initial_model'),
        ({'teacher': 'x.yaml'}, 'expected a distillation_weight above 0'),
        ({'weight_decay': 'much'}, "weight_decay: expected a number of at least 0.0, got 'much'"),
        ({'weight_decay': -0.1}, 'weight_decay: expected a number of at least 0'),
        ({'ema_decay': 1.5}, 'ema_decay: expected a number from 0.0 to 0.99'),
        ({'drop_path': 1.0}, 'drop_path: expected a number from'),
        ({'learning_rate': True}, 'learning_rate: expected a number'),
        ({'warmup_steps': -3}, 'warmup_steps: expected an integer >= 0, got -3'),
        ({'seed': 1.5}, 'seed: expected an integer >= 0, got 1.5'),
        ({'seed': -1}, 'seed: expected an integer'),
        ({'variants': []}, 'variants: expected at least one'),
        ({'variants': ['sparse']}, "unknown variant 'sparse'"),
        ({'batchsize': 3}, "unknown keys ['batchsize']; legal are model"),
        ({'model': 'vit'}, 'expected a mapping with at least the key "model"'),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, complaint):
    path = tmp_path / 'config.yaml'
    path.write_text(yaml.safe_dump({'model': {}, **change}))
    with pytest.raises(TrainConfigError, match=re.escape(complaint)):
        TrainConfig.load(path)


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / 'config.yaml').write_text('{:')
    with pytest.raises(TrainConfigError, match=r'config\.yaml: no YAML'):
        TrainConfig.load(tmp_path / 'config.yaml')


@pytest.mark.parametrize(
    'name, prefixes, expected',
    [
        ('encoder.blocks.1.attn', ('encoder.blocks.1',), True),
        ('encoder.blocks.10.attn', ('encoder.blocks.1',), False),
        ('encoder.blocks.10.attn', ('head', 'encoder.'), True),
        ('encoder.pos_embed', ('encoder.pos_embed',), True),
        ('headline', ('head',), False),
        ('head.query', (), False),
    ],
)
def test_prefixes_are_whole_names(name, prefixes, expected):
    assert is_under(name, prefixes) is expected


def test_values_changed_on_the_command_line(tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text(yaml.safe_dump({'model': {'name': 'x', 'policy': 'half_size'}, 'steps': 5}))
    changes = ['steps=7', 'model.policy=half_size', 'model.decoder.layers=1', 'variants=[dense, cts]']
    config = TrainConfig.load(path, [*changes, 'precision=float32'])
    assert (config.steps, config.variants, config.precision) == (7, ('dense', 'cts'), 'float32')
    assert config.model == {'name': 'x', 'policy': 'half_size', 'decoder': {'layers': 1}}
    assert TrainConfig.load(path).steps == 5


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('steps', "KEY=VALUE or KEY.KEY=VALUE, got 'steps'"),
        ('=5', 'KEY=VALUE'),
        ('model.=5', 'KEY=VALUE'),
        ('stepps=5', r"unknown keys \['stepps'\]"),
        ('model.name.first=5', 'name holds no keys'),
        ('steps=[1', 'the value is no YAML'),
        ('steps=-1', 'steps: expected an integer >= 1'),
    ],
)
def test_changes_that_are_none(tmp_path, change, message):
    path = tmp_path / 'run.yaml'
    path.write_text(yaml.safe_dump({'model': {'name': 'x'}}))
    with pytest.raises(TrainConfigError, match=message):
        TrainConfig.load(path, [change])


def test_a_file_states_what_differs_from_its_base(tmp_path):
    (tmp_path / 'base.yaml').write_text(yaml.safe_dump({'model': {'name': 'x', 'policy': 'half_size'}, 'steps': 5}))
    (tmp_path / 'more').mkdir()
    middle = {'base': '../base.yaml', 'model': {'policy': 'half_size'}, 'batch_size': 3}
    (tmp_path / 'more' / 'middle.yaml').write_text(yaml.safe_dump(middle))
    (tmp_path / 'more' / 'top.yaml').write_text(yaml.safe_dump({'base': 'middle.yaml', 'steps': 9}))
    config = TrainConfig.load(tmp_path / 'more' / 'top.yaml', ['model.name=y'])
    assert config == TrainConfig({'name': 'y', 'policy': 'half_size'}, steps=9, batch_size=3)


def test_a_base_that_builds_on_itself(tmp_path):
    for name, base in (('a', 'b'), ('b', 'a')):
        (tmp_path / f'{name}.yaml').write_text(f'base: {base}.yaml')
    with pytest.raises(TrainConfigError, match='its base builds on itself'):
        TrainConfig.load(tmp_path / 'a.yaml')
    (tmp_path / 'c.yaml').write_text('base: d.yaml')
    with pytest.raises(FileNotFoundError, match='d.yaml: no such file'):
        TrainConfig.load(tmp_path / 'c.yaml')


def test_numbers_that_yaml_reads_as_text(tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text(yaml.safe_dump({'model': {'name': 'x'}}))
    config = TrainConfig.load(path, ['learning_rate=1e-3', 'weight_decay=5e-2'])
    assert (config.learning_rate, config.weight_decay) == (0.001, 0.05)
