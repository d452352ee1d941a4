"""Launch and configuration files agree with the package.

The launch library is not on PyPI, so here the launch files are read and not run: their imports, arguments, and the
files, programs and parameters that they name. `ros2 launch` runs them where ROS 2 is installed.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from hybrid_seg_ros.inference.backends import BACKENDS, PRECISIONS
from hybrid_seg_ros.inference.pipeline import OUTPUT_SIZES
from hybrid_seg_ros.model_spec import PAPER_VARIANTS
from hybrid_seg_ros.ros.parameters import DECLARATIONS, IMAGE_TRANSPORTS

ROOT = Path(__file__).parents[1]
LAUNCH_FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
SEGMENTATION = ROOT / 'launch' / 'segmentation.launch.py'
CONFIG = ROOT / 'config'

DOCUMENTED = {
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


def calls(path: Path, name: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(path.read_text(encoding='utf-8')))
    return [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def arguments_of(path: Path) -> dict[str, dict[str, ast.expr]]:
    """Return the keywords of each launch argument that the file declares."""
    return {
        ast.literal_eval(call.args[0]): {keyword.arg: keyword.value for keyword in call.keywords}
        for call in calls(path, 'DeclareLaunchArgument')
    }


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
            assert ast.literal_eval(keywords['default_value']) in ast.literal_eval(keywords['choices']), name


def test_every_argument_that_is_used_is_declared(launch_file):
    tree = ast.parse(launch_file.read_text(encoding='utf-8'))
    loops = [node.iter for node in ast.walk(tree) if isinstance(node, ast.comprehension)]
    used = {name for loop in loops if isinstance(loop, ast.Tuple) for name in ast.literal_eval(loop)}
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


@pytest.mark.parametrize(
    ('argument', 'legal'),
    [
        ('variant', PAPER_VARIANTS),
        ('backend', BACKENDS),
        ('precision', PRECISIONS),
        ('mask_size', OUTPUT_SIZES),
        ('image_transport', IMAGE_TRANSPORTS),
    ],
)
def test_choices_are_those_of_the_node(argument, legal):
    choices = ast.literal_eval(arguments_of(SEGMENTATION)[argument]['choices'])
    assert set(choices) == {'', *legal}  # the empty one leaves it to params_file


def test_parameters_set_by_launch_are_text():
    types = {declaration.name: type(declaration.default) for declaration in DECLARATIONS}
    for name in constant(SEGMENTATION, 'NODE_PARAMETERS'):
        assert types[name] is str  # a launch argument is text, and launch hands it on as that
        assert name in arguments_of(SEGMENTATION)


def test_what_replay_launch_passes_on_is_declared():
    include = calls(ROOT / 'launch' / 'replay.launch.py', 'IncludeLaunchDescription')[0]
    passed = next(keyword.value for keyword in include.keywords if keyword.arg == 'launch_arguments').func.value
    assert {ast.literal_eval(key) for key in passed.keys} <= set(arguments_of(SEGMENTATION))


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
