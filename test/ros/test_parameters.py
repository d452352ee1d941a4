"""Declaration, reading and refusal of the node's parameters, and what the live ones ask of the pipeline."""

import dataclasses
import os
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.parameter import Parameter
from tiny_model import tiny_spec, write_tiny_model

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.model_path import resolve_model_path
from hybrid_seg_ros.model_spec import ModelSpecError, TokenBudget, Variant
from hybrid_seg_ros.ros.frame_worker import FrameWorker
from hybrid_seg_ros.ros.model_loading import Model
from hybrid_seg_ros.ros.node_parameters import (
    check_parameters,
    declare_parameters,
    files_for_others,
    read_config,
    read_live_settings,
    unknown_names,
)
from hybrid_seg_ros.ros.parameters import CONFIGURE, DECLARATIONS, LIVE, START, LiveSettings, NodeConfig

OWN = LiveSettings()


@pytest.fixture(scope='module')
def context():
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    yield context
    context.try_shutdown()


@pytest.fixture
def make_node(context):
    nodes = []

    def make(**overrides):
        parameters = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(rclpy.create_node('parameters', context=context, parameter_overrides=parameters))
        declare_parameters(nodes[-1])
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def check(is_configured=True, live_problem=lambda changes: '', **values):
    parameters = [Parameter(name, value=value) for name, value in values.items()]
    return check_parameters(parameters, is_configured, live_problem)


def test_the_defaults_are_a_legal_configuration(make_node):
    node = make_node()
    assert read_config(node) == NodeConfig()
    assert read_live_settings(node) == OWN


def test_an_empty_list_of_cameras_is_the_default(context):
    node = rclpy.create_node('parameters', context=context, cli_args=['--ros-args', '-p', 'cameras:=[]'])
    declare_parameters(node)
    assert read_config(node).cameras == ['']
    node.destroy_node()


def test_names_that_nobody_declared_are_listed_with_what_was_meant(make_node):
    node = make_node(tresholds=0.5, nonsense=1, keep=0.5, use_sim_time=False)
    assert unknown_names(node) == ['tresholds (did you mean threshold?)', 'nonsense']


@pytest.mark.parametrize('namespace', ['/', '/front'])
@pytest.mark.parametrize(
    'section',
    ['/**', '**', '/*', '/**/parameters', '/*/parameters', 'parameters', '/front/parameters', 'others', 'front'],
)
def test_a_parameter_file_is_for_a_node_where_ros_2_takes_it(context, tmp_path, section, namespace):
    path = tmp_path / 'file.yaml'
    values = {'ros__parameters': {'keep': 0.25}}
    path.write_text(yaml.safe_dump({section: {'parameters': values} if section == 'front' else values}))
    arguments = ['--ros-args', '--params-file', str(path)]
    node = rclpy.create_node('parameters', context=context, namespace=namespace, cli_args=arguments)
    declare_parameters(node)
    is_taken = node.get_parameter('keep').value == 0.25
    assert files_for_others(node, arguments) == ([] if is_taken else [str(path)])
    node.destroy_node()


def test_every_parameter_is_described_with_its_range(make_node):
    node = make_node()
    for declaration in DECLARATIONS:
        descriptor = node.describe_parameter(declaration.name)
        assert descriptor.description and descriptor.additional_constraints.endswith('.')
        assert descriptor.read_only == (declaration.when == START)
        numeric = isinstance(declaration.default, (int, float)) and not isinstance(declaration.default, bool)
        assert bool(descriptor.floating_point_range or descriptor.integer_range) == numeric


@pytest.mark.parametrize(
    ('name', 'value', 'error'),
    [
        ('overlay_alpha', 1.1, InvalidParameterValueException),
        ('num_threads', -1, InvalidParameterValueException),
        ('threshold', float('nan'), InvalidParameterValueException),
        ('device', 3, InvalidParameterTypeException),
    ],
)
def test_a_start_value_of_wrong_type_or_range_is_refused_at_once(make_node, name, value, error):
    with pytest.raises(error, match=name):
        make_node(**{name: value})


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('backend', 'caffe', "unknown value 'caffe'; legal are auto, pytorch"),
        ('precision', 'float8', 'legal are auto, float32, bfloat16, float16'),
        ('image_transport', 'theora', 'legal are raw, compressed'),
        ('mask_size', 'huge', 'legal are network, image'),
        ('variant', 'hybrid', 'legal are dense, cts'),
        ('keep', 1.5, 'a fraction up to 1.0 or a whole count'),
        ('keep', 70000, 'expected a number from -1.0 to 65536.0'),
        ('keep', 'many', 'expected a number from -1.0 to 65536.0'),
        ('threshold', 2, 'expected a number from 0.0 to 1.0'),
        ('keep', -0.5, "-1 (the model's own)"),
        ('schedule', 'random', 'legal are turns, batch'),
        ('image_reliability', 'perfect', 'legal are auto, best_effort, reliable'),
        ('cameras', ['front', 'front'], 'expected each name once'),
        ('cameras', ['/front'], 'expected entries like front or front:=/front/image_raw'),
    ],
)
def test_bad_values_are_refused_with_the_legal_ones(make_node, name, value, reason):
    with pytest.raises(ValueError) as raised:
        read_config(make_node(**{name: value}))
    assert reason in str(raised.value)
    result = check(is_configured=False, **{name: value})
    assert not result.successful and reason in result.reason and name in result.reason


def test_configuration_is_fixed_while_the_node_is_configured():
    for declaration in DECLARATIONS:
        if declaration.when == CONFIGURE:
            result = check(**{declaration.name: declaration.default})
            assert not result.successful and 'cleanup' in result.reason
            assert check(is_configured=False, **{declaration.name: declaration.default}).successful
        if declaration.when == LIVE:
            assert check(**{declaration.name: declaration.default}).successful


def test_one_bad_parameter_refuses_the_whole_request_and_foreign_ones_pass():
    assert not check(overlay_alpha=0.2, variant='nonsense').successful
    assert check(use_sim_time=True).successful


def test_the_live_parameters_of_a_request_are_judged_together():
    asked = []
    assert check(variant='cts', keep=0.5, live_problem=lambda changes: asked.append(dict(changes)) or '').successful
    assert asked == [{'variant': 'cts', 'keep': 0.5}]
    refused = check(variant='cts', live_problem=lambda changes: 'not this model')
    assert (refused.successful, refused.reason) == (False, 'not this model')


def test_the_loaded_model_has_its_say(make_node, tmp_path):
    """What an exported graph has to say is in test_segmentation_node_start.py."""
    path = write_tiny_model(tmp_path, auxiliary_layers=(8,), variant=Variant.parse('hybrid@8'))
    model = Model(load_pipeline(path, 'pytorch', 'cpu', 'float32'), (), 'none was made')
    worker = FrameWorker(make_node(), lambda: model)
    assert worker.problem({'variant': 'hybrid@8'}) == worker.problem({'variant': ''}) == ''
    assert 'legal for tiny are dense, cts, dtop@8, hybrid@8' in worker.problem({'variant': 'dtop@6+8'})
    assert worker.problem({'target_fps': 5.0}) == 'a target of 5 FPS needs operating points: none was made'
    worker.close()


@pytest.mark.parametrize(
    ('changes', 'variant', 'keep', 'threshold'),
    [
        ({}, 'hybrid@6+8', (0.7,), 0.9),
        ({'variant': 'dense'}, 'dense', (0.7,), 0.9),
        ({'keep': 0.0}, 'hybrid@6+8', None, 0.9),
        ({'keep': 0.0, 'threshold': 0.5}, 'hybrid@6+8', None, 0.5),
        ({'threshold': 0.5}, 'hybrid@6+8', None, 0.5),
        ({'keep': 0.25}, 'hybrid@6+8', (0.25,), 0.9),
        ({'keep': 1.0}, 'hybrid@6+8', (1.0,), 0.9),
        ({'keep': 1}, 'hybrid@6+8', (1.0,), 0.9),
        ({'keep': 300}, 'hybrid@6+8', (300,), 0.9),
        ({'keep': 300.0, 'threshold': 0.5}, 'hybrid@6+8', (300,), 0.9),
    ],
)
def test_operating_point(changes, variant, keep, threshold):
    spec = tiny_spec(budget=TokenBudget(keep=(0.7,), threshold=0.9))
    point = dataclasses.replace(OWN, **changes).operating_point(spec)
    assert (str(point[0]), point[1].keep, point[1].threshold) == (variant, keep, threshold)
    assert keep is None or isinstance(point[1].keep[0], type(keep[0]))


def test_operating_point_that_the_model_cannot_run():
    with pytest.raises(ModelSpecError, match='no auxiliary head after layer 7'):
        dataclasses.replace(OWN, variant='dtop@7').operating_point(tiny_spec())


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make an ament prefix that has this package and another one."""
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    for package in ('hybrid_seg_ros', 'my_models'):
        (index / package).touch()
        (tmp_path / 'share' / package).mkdir()
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    return tmp_path / 'share'


@pytest.mark.parametrize(
    ('text', 'path'),
    [
        ('', 'hybrid_seg_ros/models/segvit_small_camvid.yaml'),
        ('other', 'hybrid_seg_ros/models/other.yaml'),
        ('other.yaml', 'hybrid_seg_ros/models/other.yaml'),
        ('package://hybrid_seg_ros/models/x.yaml', 'hybrid_seg_ros/models/x.yaml'),
        ('package://my_models/a/x.yaml', 'my_models/a/x.yaml'),
    ],
)
def test_models_are_found_in_the_share_folder(installed, text, path):
    assert resolve_model_path(text) == installed / path


def test_paths_are_taken_as_they_are(installed, monkeypatch, tmp_path):
    assert resolve_model_path('/somewhere/x.yaml') == Path('/somewhere/x.yaml')
    assert resolve_model_path('~/x.yaml') == Path(os.path.expanduser('~/x.yaml'))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here.yaml').touch()
    assert resolve_model_path('here.yaml') == Path('here.yaml')


def test_without_an_installed_package_the_source_tree_is_used(monkeypatch):
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    assert resolve_model_path('') == Path(__file__).parents[2] / 'models' / 'segvit_small_camvid.yaml'
    with pytest.raises(ValueError, match="package 'my_models' is not installed"):
        resolve_model_path('package://my_models/x.yaml')
