"""Launch and configuration files agree with the package.

The launch library is not on PyPI, so here the launch files run with doubles of what they import of it, which take what
launch and launch_ros document in every distribution from Humble on. `ros2 launch` runs them where ROS 2 is installed.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import types
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from hybrid_seg_ros.ros.parameters import DECLARATIONS

ROOT = Path(__file__).parents[1]
LAUNCH = {path.name.partition('.')[0]: path for path in sorted((ROOT / 'launch').glob('*.launch.py'))}
CONFIG = ROOT / 'config'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]

DOCUMENTED = {
    'ament_index_python.packages': {'get_package_prefix': 'package_name'},
    'launch': {'LaunchDescription': 'initial_entities'},
    'launch.actions': {
        'DeclareLaunchArgument': 'name, *, default_value, description, choices',
        'ExecuteProcess': '*, cmd, output, on_exit',
        'IncludeLaunchDescription': 'launch_description_source, *, launch_arguments',
        'OpaqueFunction': '*, function',
        'SetEnvironmentVariable': 'name, value, *, condition',
        'Shutdown': '*, reason',
    },
    'launch.conditions': {'IfCondition': 'predicate_expression'},
    'launch.launch_description_sources': {'PythonLaunchDescriptionSource': 'location'},
    'launch.substitutions': {'LaunchConfiguration': 'variable_name', 'PathJoinSubstitution': 'substitutions'},
    'launch_ros.actions': {
        'Node': '*, package, executable, namespace, parameters, remappings, arguments, respawn, respawn_delay, output, '
        'emulate_tty',
    },
    'launch_ros.substitutions': {'ExecutableInPackage': '*, executable, package', 'FindPackageShare': 'package'},
}
"""What the launch files may import, with its arguments; those after the star by name only."""

KINDS = {str: 'string', bool: 'boolean', int: 'integer', float: 'double', list: 'string array'}
BOOLEANS = {'true', 'false', 'True', 'False'}


class Made(types.SimpleNamespace):
    """Stands for an object of launch: its class's name is `kind`, its arguments are attributes."""

    def perform(self, context):
        """Return a LaunchConfiguration's value; the context is a dictionary of the arguments."""
        return context[self.variable_name]


@pytest.fixture
def load(monkeypatch):
    """Return what loads a launch file: its names, and `made`, what of launch it has made, which grows."""

    def load_file(name):
        made = []

        def double(kind, arguments):
            by_place, _, by_name = (part.strip(', ') for part in arguments.partition('*'))
            by_place, by_name = (part.split(', ') if part else [] for part in (by_place, by_name))

            def make(*values, **named):
                assert len(values) <= len(by_place) and set(named) <= {*by_place, *by_name}, (kind, values, named)
                made.append(Made(kind=kind, **dict(zip(by_place, values)), **named))
                return made[-1]

            return make

        for module_name, names in DOCUMENTED.items():
            module = types.ModuleType(module_name)
            vars(module).update({kind: double(kind, arguments) for kind, arguments in names.items()})
            monkeypatch.setitem(sys.modules, module_name, module)
        sys.modules['ament_index_python.packages'].PackageNotFoundError = LookupError
        loaded = runpy.run_path(str(LAUNCH[name]))
        loaded['generate_launch_description']()
        return types.SimpleNamespace(**{**loaded, 'made': made})

    return load_file


def of_kind(loaded, kind):
    return [each for each in loaded.made if each.kind == kind]


def arguments_of(loaded):
    return {each.name: each for each in of_kind(loaded, 'DeclareLaunchArgument')}


def context_of(loaded, **given):
    """Return every declared argument with its default or with what is given."""
    defaults = {name: argument.default_value for name, argument in arguments_of(loaded).items()}
    return {**defaults, 'params_file': str(CONFIG / 'segmentation.yaml'), **given}


@pytest.mark.parametrize('name', ['replay', 'segmentation'])
def test_what_it_declares_and_names_is_there(load, name):
    assert set(LAUNCH) == {'replay', 'segmentation'}
    loaded = load(name)
    for argument in arguments_of(loaded).values():
        assert len(argument.description) > 10, argument.name
        choices = getattr(argument, 'choices', None)
        assert choices is None or argument.default_value in choices, argument.name
        assert choices is None or 'true' not in choices or set(choices) >= BOOLEANS, 'written either way'
    for each in of_kind(loaded, 'OpaqueFunction'):
        each.function(context_of(loaded))
    for each in of_kind(loaded, 'LaunchConfiguration'):
        assert each.variable_name in arguments_of(loaded)
    shared = [each.substitutions for each in of_kind(loaded, 'PathJoinSubstitution')]
    assert shared and all(ROOT.joinpath(*parts).exists() for _, *parts in shared)
    programs = re.findall(r"'(\w+) = hybrid_seg_ros", (ROOT / 'setup.py').read_text(encoding='utf-8'))
    started = of_kind(loaded, 'Node') + of_kind(loaded, 'ExecutableInPackage')
    assert started and all(each.package == 'hybrid_seg_ros' and each.executable in programs for each in started)


def test_every_parameter_is_an_argument_that_leaves_it_to_the_file(load):
    arguments = arguments_of(load('segmentation'))
    for declaration in DECLARATIONS:
        argument = arguments[declaration.name]
        assert argument.default_value == '' and argument.description.startswith(declaration.description)
        legal = BOOLEANS if isinstance(declaration.default, bool) else declaration.legal
        assert set(argument.choices or ()) == ({'', *legal} if legal else set()), declaration.name


def test_the_node_gets_what_was_given_on_top_of_the_file(load):
    loaded = load('segmentation')

    def node(**given):
        (made,) = loaded.make_node(context_of(loaded, **given))
        return made

    default = node()
    assert default.parameters == [str(CONFIG / 'segmentation.yaml')]
    assert (default.respawn, default.respawn_delay) == (False, 2.0) and '--enclave' not in default.arguments
    given = node(keep='0.5', cameras='front:=/x, left', use_sim_time='True', respawn='true', enclave='/e')
    assert given.parameters[1:] == [{'keep': 0.5, 'cameras': ['front:=/x', 'left'], 'use_sim_time': True}]
    assert given.respawn is True and given.arguments[-2:] == ['--enclave', '/e']
    for missing in ('/nowhere/my.yaml', ''):
        with pytest.raises(ValueError, match=f"launch argument params_file: expected a file, got '{missing}'"):
            node(params_file=missing)


def test_replay_plays_what_was_asked_for(load):
    loaded = load('replay')
    context = context_of(loaded, image='/cam', loop='False', restamp='True')
    (replay,) = loaded.make_replay(context)
    assert replay.cmd[1] == 'replay' and replay.cmd[3:5] == ['--topic', '/cam/compressed']
    assert '--restamp' in replay.cmd and '--loop' not in replay.cmd
    (include,) = of_kind(loaded, 'IncludeLaunchDescription')
    assert dict(include.launch_arguments).keys() <= arguments_of(load('segmentation')).keys()


def test_rviz_is_looked_for_before_anything_is_started(load):
    loaded = load('replay')
    starts = ('OpaqueFunction', 'IncludeLaunchDescription', 'Node', 'ExecuteProcess')
    first = next(each for each in loaded.made if each.kind in starts)
    assert first.function is loaded.make_rviz
    assert loaded.make_rviz(context_of(loaded)) == []

    def is_missing(name):
        raise LookupError

    loaded.make_rviz.__globals__['get_package_prefix'] = is_missing
    with pytest.raises(RuntimeError, match='rviz:=true needs rviz2: sudo apt install ros-'):
        loaded.make_rviz(context_of(loaded, rviz='True'))


def test_a_default_written_as_text_is_the_default_again(load):
    argument_value = load('segmentation').argument_value
    for declaration in DECLARATIONS:
        default = declaration.default
        value = argument_value(
            declaration.name, type(default), ','.join(default) if isinstance(default, list) else str(default)
        )
        assert value == default and type(value) is type(default)


@pytest.mark.parametrize(
    ('kind', 'text', 'value'),
    [
        (float, '1', 1.0), (float, ' -1.5 ', -1.5), (int, '4', 4), (bool, 'true', True), (bool, 'False', False),
        (str, '1.0', '1.0'), (str, 'cuda:1', 'cuda:1'), (list, 'front', ['front']),
        (list, 'front:=/front/image_raw, left', ['front:=/front/image_raw', 'left']),
    ],
)  # fmt: skip
def test_text_becomes_a_value_of_the_type(load, kind, text, value):
    result = load('segmentation').argument_value('name', kind, text)
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ('kind', 'text'), [(float, 'fast'), (int, '1.5'), (int, ''), (bool, '1'), (bool, 'yes')]
)  # fmt: skip
def test_text_of_another_type_is_refused_by_name(load, kind, text):
    with pytest.raises(ValueError, match=f'launch argument keep: expected {KINDS[kind]}, got {text!r}'):
        load('segmentation').argument_value('keep', kind, text)


def test_a_launch_file_needs_of_the_package_what_apt_installs():
    """It runs with the system's Python: not with what lies in a virtual environment."""
    program = (
        'import sys; before = set(sys.modules); import hybrid_seg_ros.ros.parameters; '
        'print(*{name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)'
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    imported = {name for name in result.stdout.split() if not name.startswith('_')}
    assert imported - {'cython_runtime'} == {'hybrid_seg_ros', 'numpy', 'cv2', 'yaml'}


def test_arguments_on_the_pages_are_declared(load):
    declared = {name: set(arguments_of(load(name))) for name in LAUNCH}
    declared['replay'] |= declared['segmentation']
    for page in PAGES:
        text = page.read_text(encoding='utf-8')
        for name, arguments in re.findall(r'ros2 launch hybrid_seg_ros (\w+)\.launch\.py([^\n#]*)', text):
            assert set(re.findall(r'(\w+):=', arguments)) <= declared[name], (page.name, arguments)


def test_what_derives_from_the_parameters_is_current():
    tool = runpy.run_path(str(ROOT / 'tools' / 'write_parameters.py'))
    again = 'run tools/write_parameters.py'
    assert (CONFIG / 'segmentation.yaml').read_text(encoding='utf-8') == tool['parameter_file'](), again
    page = (ROOT / 'docs' / 'node.md').read_text(encoding='utf-8')
    assert page == tool['page'](page), again


def test_parameter_file_holds_every_default():
    (content,) = yaml.safe_load((CONFIG / 'segmentation.yaml').read_text(encoding='utf-8')).values()
    declared = {declaration.name: declaration.default for declaration in DECLARATIONS}
    given = content['ros__parameters']
    assert given == declared
    assert {name: type(value) for name, value in given.items()} == {n: type(v) for n, v in declared.items()}


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
