"""Launch and configuration files agree with the package.

The launch library is not on PyPI, so here the launch files are read and not run: their imports, arguments, and the
files, programs and parameters that they name. `ros2 launch` runs them where ROS 2 is installed.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from hybrid_seg_ros.model_spec import PAPER_VARIANTS
from hybrid_seg_ros.ros.parameters import DECLARATIONS

ROOT = Path(__file__).parents[1]
LAUNCH_FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
REPLAY = ROOT / 'launch' / 'replay.launch.py'
SEGMENTATION = ROOT / 'launch' / 'segmentation.launch.py'
CONFIG = ROOT / 'config'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]

DOCUMENTED = {
    'ament_index_python.packages': {'PackageNotFoundError', 'get_package_prefix'},
    'launch': {'LaunchDescription'},
    'launch.actions': {
        'DeclareLaunchArgument', 'ExecuteProcess', 'IncludeLaunchDescription', 'OpaqueFunction',
        'SetEnvironmentVariable', 'Shutdown',
    },
    'launch.conditions': {'IfCondition'},
    'launch.launch_description_sources': {'PythonLaunchDescriptionSource'},
    'launch.substitutions': {'LaunchConfiguration', 'PathJoinSubstitution'},
    'launch_ros.actions': {'Node'},
    'launch_ros.substitutions': {'ExecutableInPackage', 'FindPackageShare'},
}  # fmt: skip
"""What the launch files may import: names that launch and launch_ros document in every distribution from Humble on."""


KINDS = {
    str: 'string', bool: 'boolean', int: 'integer', float: 'double', list: 'string array', tuple: 'string array',
}  # fmt: skip
"""ROS's names of the types of parameters that the node has."""

BOOLEANS = ['true', 'false', 'True', 'False']


def calls(path: Path, name: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(path.read_text(encoding='utf-8')))
    return [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def arguments_of(path: Path) -> dict[str, dict[str, ast.expr]]:
    """Return the keywords of each launch argument that the file declares."""
    return {
        ast.literal_eval(call.args[0]): {keyword.arg: keyword.value for keyword in call.keywords}
        for call in calls(path, 'DeclareLaunchArgument')
    }


def choices_of(keywords: dict[str, ast.expr]) -> list[str]:
    """Return the values that an argument may have."""
    return eval(ast.unparse(keywords['choices']), {'BOOLEANS': BOOLEANS})


def function_of(path: Path, name: str, **names):
    """Return one function of the file, without the rest, which needs launch; `names` stand in for what it uses."""
    (function,) = (n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef) and n.name == name)
    namespace = {'os': os, 'LaunchConfiguration': Given, **names}
    exec(compile(ast.Module([function], []), str(path), 'exec'), namespace)
    return namespace[name]


class Given:
    """Stands for launch's LaunchConfiguration; the context is a dictionary of the arguments."""

    def __init__(self, name):
        self._name = name

    def perform(self, context):
        return context[self._name]


def constant(path: Path, name: str):
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f'{path.name} has no {name}')


@pytest.fixture(params=LAUNCH_FILES, ids=lambda path: path.name)
def launch_file(request):
    return request.param


def test_both_are_there():
    assert [path.name for path in LAUNCH_FILES] == ['replay.launch.py', 'segmentation.launch.py']


def test_it_compiles_and_has_an_entry_point(launch_file):
    source = launch_file.read_text(encoding='utf-8')
    compile(source, str(launch_file), 'exec')
    functions = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    assert 'generate_launch_description' in functions
    for call in calls(launch_file, 'OpaqueFunction'):
        assert {ast.unparse(keyword.value) for keyword in call.keywords} <= functions


def test_it_imports_documented_names_only(launch_file):
    for node in ast.walk(ast.parse(launch_file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {'os'}
        elif isinstance(node, ast.ImportFrom):
            assert {alias.name for alias in node.names} <= DOCUMENTED[node.module]


def test_every_argument_is_described_and_optional(launch_file):
    for name, keywords in arguments_of(launch_file).items():
        assert {'description', 'default_value'} <= set(keywords), name
        assert len(ast.literal_eval(keywords['description'])) > 10, name
        if 'choices' in keywords:
            assert ast.literal_eval(keywords['default_value']) in choices_of(keywords), name


def test_every_argument_that_is_used_is_declared(launch_file):
    tree = ast.parse(launch_file.read_text(encoding='utf-8'))
    loops = [node.iter for node in ast.walk(tree) if isinstance(node, ast.comprehension)]
    used = {name for loop in loops if isinstance(loop, ast.Tuple) for name in ast.literal_eval(loop)}
    used |= {name for loop in loops if isinstance(loop, ast.Name) for name in constant(launch_file, loop.id)}
    names = [call.args[0] for call in calls(launch_file, 'LaunchConfiguration')]
    used |= {ast.literal_eval(name) for name in names if isinstance(name, ast.Constant)}
    assert used and used <= set(arguments_of(launch_file))


def test_every_shared_file_exists(launch_file):
    found = re.findall(r'PathJoinSubstitution\(\[share, ([^\]]+)\]\)', launch_file.read_text(encoding='utf-8'))
    assert found
    for parts in found:
        assert ROOT.joinpath(*ast.literal_eval(f'[{parts}]')).exists(), parts


def test_every_program_of_ours_exists(launch_file):
    setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
    programs = set(re.findall(r"'(\w+) = hybrid_seg_ros", setup))
    for call in calls(launch_file, 'Node') + calls(launch_file, 'ExecutableInPackage'):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if given['package'] == 'PACKAGE':
            assert ast.literal_eval(given['executable']) in programs


def test_every_parameter_has_a_launch_argument_of_its_type():
    kinds = {d.name: KINDS[type(d.default)] for d in DECLARATIONS}
    assert {name: kind for name, kind in constant(SEGMENTATION, 'NODE_PARAMETERS').items() if name in kinds} == kinds
    assert set(kinds) <= set(arguments_of(SEGMENTATION))


def test_no_launch_argument_is_a_parameter_that_the_node_lacks():
    assert set(constant(SEGMENTATION, 'NODE_PARAMETERS')) <= {declaration.name for declaration in DECLARATIONS}


def test_an_argument_that_is_not_given_leaves_the_parameter_to_the_file():
    arguments = arguments_of(SEGMENTATION)
    for name in constant(SEGMENTATION, 'NODE_PARAMETERS'):
        assert ast.literal_eval(arguments[name]['default_value']) == '', name


def test_choices_are_those_of_the_node():
    """The empty choice leaves it to params_file."""
    legal = {d.name: d.legal for d in DECLARATIONS if d.legal} | {'variant': PAPER_VARIANTS}
    legal |= {d.name: BOOLEANS for d in DECLARATIONS if isinstance(d.default, bool)}
    arguments = arguments_of(SEGMENTATION)
    assert {'backend', 'precision', 'mask_size', 'image_transport', 'enabled'} <= set(legal)
    for name, values in legal.items():
        assert set(choices_of(arguments[name])) == {'', *values}, name


def test_booleans_are_written_either_way(launch_file):
    assert constant(launch_file, 'BOOLEANS') == BOOLEANS
    yes_or_no = [choices_of(keywords) for keywords in arguments_of(launch_file).values() if 'choices' in keywords]
    assert all(set(BOOLEANS) <= set(choices) for choices in yes_or_no if 'true' in choices)


def test_rviz_is_looked_for_before_anything_is_started():
    def is_missing(name):
        raise LookupError

    names = {'get_package_prefix': is_missing, 'PackageNotFoundError': LookupError}
    make_rviz = function_of(REPLAY, 'make_rviz', **names)
    assert make_rviz({'rviz': 'false'}) == []
    with pytest.raises(RuntimeError, match='rviz:=true needs rviz2: sudo apt install ros-'):
        make_rviz({'rviz': 'True'})
    actions = ast.unparse(calls(REPLAY, 'LaunchDescription')[0])
    assert re.findall(r'make_\w+|IncludeLaunch\w+|Node|ExecuteProcess', actions)[0] == 'make_rviz'


@pytest.mark.parametrize('text', ['/nowhere/my.yaml', ''])
def test_a_parameter_file_that_is_not_there_is_an_error(text):
    make_node = function_of(SEGMENTATION, 'make_node', NODE_PARAMETERS={})
    with pytest.raises(ValueError, match=f"launch argument params_file: expected a file, got '{text}'"):
        make_node({'params_file': text})


@pytest.fixture(scope='module')
def parameter_value():
    return function_of(SEGMENTATION, 'parameter_value')


def test_a_default_written_as_text_is_the_default_again(parameter_value):
    for declaration in DECLARATIONS:
        default = declaration.default
        text = ','.join(default) if isinstance(default, (list, tuple)) else str(default)
        value = parameter_value(declaration.name, KINDS[type(default)], text)
        assert value == (list(default) if isinstance(default, tuple) else default)
        assert type(value) is (list if isinstance(default, tuple) else type(default))


@pytest.mark.parametrize(
    ('kind', 'text', 'value'),
    [
        ('double', '1', 1.0),
        ('double', ' -1.5 ', -1.5),
        ('integer', '4', 4),
        ('boolean', 'true', True),
        ('boolean', 'False', False),
        ('string', '1.0', '1.0'),
        ('string', 'cuda:1', 'cuda:1'),
        ('string array', 'front', ['front']),
        ('string array', 'front:=/front/image_raw, left', ['front:=/front/image_raw', 'left']),
    ],
)
def test_text_becomes_a_value_of_the_type(parameter_value, kind, text, value):
    result = parameter_value('name', kind, text)
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ('kind', 'text'), [('double', 'fast'), ('integer', '1.5'), ('integer', ''), ('boolean', '1'), ('boolean', 'yes')]
)
def test_text_of_another_type_is_refused_by_name(parameter_value, kind, text):
    with pytest.raises(ValueError, match=f'launch argument keep: expected {kind}, got {text!r}'):
        parameter_value('keep', kind, text)


def test_respawn_is_off_by_default_and_waits():
    arguments = arguments_of(SEGMENTATION)
    assert ast.literal_eval(arguments['respawn']['default_value']) == 'false'
    assert float(ast.literal_eval(arguments['respawn_delay']['default_value'])) >= 1.0
    (node,) = calls(SEGMENTATION, 'Node')
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    assert given['respawn'].startswith("parameter_value('respawn', 'boolean', LaunchConfiguration('respawn')")
    assert "LaunchConfiguration('respawn_delay')" in given['respawn_delay']


def test_what_replay_launch_passes_on_is_declared():
    include = calls(REPLAY, 'IncludeLaunchDescription')[0]
    passed = next(keyword.value for keyword in include.keywords if keyword.arg == 'launch_arguments').func.value
    assert {ast.literal_eval(key) for key in passed.keys} <= set(arguments_of(SEGMENTATION))


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_arguments_on_the_pages_are_declared(page):
    declared = {path.name: set(arguments_of(path)) for path in LAUNCH_FILES}
    declared['replay.launch.py'] |= declared['segmentation.launch.py']
    commands = re.findall(r'ros2 launch hybrid_seg_ros (\w+\.launch\.py)([^\n#]*)', page.read_text(encoding='utf-8'))
    for file, arguments in commands:
        assert set(re.findall(r'(\w+):=', arguments)) <= declared[file], arguments


def test_parameter_file_holds_every_default():
    (content,) = yaml.safe_load((CONFIG / 'segmentation.yaml').read_text(encoding='utf-8')).values()
    declared = {declaration.name: declaration.default for declaration in DECLARATIONS}
    given = content['ros__parameters']
    assert given == declared
    assert {name: type(value) for name, value in given.items()} == {n: type(v) for n, v in declared.items()}


def test_every_parameter_is_commented():
    lines = (CONFIG / 'segmentation.yaml').read_text(encoding='utf-8').splitlines()
    for declaration in DECLARATIONS:
        (line,) = (line for line in lines if line.strip().startswith(f'{declaration.name}:'))
        assert ' # ' in line, declaration.name


def test_shared_memory_holds_four_large_images():
    space = {'dds': 'http://www.eprosima.com'}
    tree = ElementTree.parse(CONFIG / 'fastdds_shm.xml').getroot()
    transports = {
        transport.findtext('dds:transport_id', namespaces=space): transport
        for transport in tree.iter(f'{{{space["dds"]}}}transport_descriptor')
    }
    used = [element.text for element in tree.find('.//dds:userTransports', space)]
    assert set(used) == set(transports)
    kinds = {name: transports[name].findtext('dds:type', namespaces=space) for name in used}
    assert sorted(kinds.values()) == ['SHM', 'UDPv4']  # discovery, and other machines, need UDP
    (shared_memory,) = (transports[name] for name, kind in kinds.items() if kind == 'SHM')
    assert int(shared_memory.findtext('dds:segment_size', namespaces=space)) >= 4 * 1280 * 720 * 3


def test_rviz_shows_camera_overlay_tokens_and_mask():
    content = yaml.safe_load((CONFIG / 'hybrid_seg.rviz').read_text(encoding='utf-8'))
    displays = content['Visualization Manager']['Displays']
    topics = {display['Name']: display['Topic']['Value'] for display in displays}
    assert topics == {
        'Camera': '/camera/image/compressed',
        'Overlay': '/segmentation_node/overlay',
        'Token map': '/segmentation_node/token_map',
        'Mask': '/segmentation_node/color_mask',
    }
    assert {display['Class'] for display in displays} == {'rviz_default_plugins/Image'}
