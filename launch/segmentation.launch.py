"""Start the segmentation node: ros2 launch hybrid_seg_ros segmentation.launch.py image:=/camera/image_raw."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from hybrid_seg_ros.ros.parameters import DECLARATIONS

PACKAGE = 'hybrid_seg_ros'

KINDS = {str: 'string', bool: 'boolean', int: 'integer', float: 'double', list: 'string array'}
"""ROS's names of the types of parameters that the node has."""

BOOLEANS = ['true', 'false', 'True', 'False']

# Fast DDS renamed its variable after Humble, and warns of the old one
PROFILES_VARIABLE = (
    'FASTRTPS_DEFAULT_PROFILES_FILE' if os.environ.get('ROS_DISTRO') == 'humble' else 'FASTDDS_DEFAULT_PROFILES_FILE'
)


def generate_launch_description():
    """Declare the arguments; the node is made once they are known."""
    share = FindPackageShare(PACKAGE)
    return LaunchDescription([
        DeclareLaunchArgument(
            'image', default_value='image',
            description='Camera topic, if there is one camera. With compressed transport its /compressed is used.',
        ),
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the node, one per camera for instance.',
        ),
        DeclareLaunchArgument(
            'params_file', default_value=PathJoinSubstitution([share, 'config', 'segmentation.yaml']),
            description='YAML file of node parameters. Arguments named after parameters, where not empty, override it.',
        ),
        *map(parameter_argument, DECLARATIONS),
        DeclareLaunchArgument(
            'use_sim_time', default_value='', choices=['', *BOOLEANS],
            description='Take the time from /clock, as with a simulator or a bag that publishes it.',
        ),
        DeclareLaunchArgument(
            'use_fastdds_shm', default_value='false', choices=BOOLEANS,
            description='Give Fast DDS room for large images in shared memory. The camera driver needs the same file.',
        ),
        DeclareLaunchArgument(
            'respawn', default_value='false', choices=BOOLEANS,
            description='Start the node again whenever it has ended, unless the launch itself ends.',
        ),
        DeclareLaunchArgument('respawn_delay', default_value='2.0', description='Seconds before it is started again.'),
        DeclareLaunchArgument(
            'enclave', default_value='', description='Security enclave of the node (SROS 2), /hybrid_seg for instance.',
        ),
        DeclareLaunchArgument(
            'log_level', default_value='info', choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Least severe messages that the node logs.',
        ),
        SetEnvironmentVariable(
            PROFILES_VARIABLE,
            PathJoinSubstitution([share, 'config', 'fastdds_shm.xml']),
            condition=IfCondition(LaunchConfiguration('use_fastdds_shm')),
        ),
        OpaqueFunction(function=make_node),
    ])  # fmt: skip


def parameter_argument(declaration):
    """Return the launch argument of a parameter of the node. Empty, it leaves the parameter to params_file."""
    legal = BOOLEANS if isinstance(declaration.default, bool) else declaration.legal
    commas = ' Commas between several.' if isinstance(declaration.default, list) else ''
    return DeclareLaunchArgument(
        declaration.name, default_value='', description=declaration.description + commas,
        choices=['', *legal] if legal else None,
    )  # fmt: skip


def make_node(context):
    """Return the node, with the parameters that were given on top of params_file."""
    params_file = LaunchConfiguration('params_file').perform(context)
    if not os.path.isfile(params_file):
        raise ValueError(f'launch argument params_file: expected a file, got {params_file!r}')
    types = {**{declaration.name: type(declaration.default) for declaration in DECLARATIONS}, 'use_sim_time': bool}
    texts = {name: LaunchConfiguration(name).perform(context) for name in types}
    given = {name: argument_value(name, types[name], text) for name, text in texts.items() if text}
    enclave = LaunchConfiguration('enclave').perform(context)
    node = Node(
        package=PACKAGE,
        executable='segmentation_node',
        namespace=LaunchConfiguration('namespace'),
        parameters=[params_file, *([given] if given else [])],
        remappings=[('image', LaunchConfiguration('image'))],
        arguments=[
            '--ros-args', '--log-level', LaunchConfiguration('log_level'), *(['--enclave', enclave] if enclave else []),
        ],
        respawn=argument_value('respawn', bool, LaunchConfiguration('respawn').perform(context)),
        respawn_delay=argument_value('respawn_delay', float, LaunchConfiguration('respawn_delay').perform(context)),
        output='screen',
        emulate_tty=True,
    )  # fmt: skip
    return [node]


def argument_value(name, kind, text):
    """Return the text of a launch argument as a value of the type `kind`, one of KINDS.

    Raises ValueError if it is none. As text it would reach the node as a string, which it refuses for a number.
    """
    if kind is list:
        return [item.strip() for item in text.split(',')]
    if kind is str:
        return text
    try:
        return {'true': True, 'false': False}[text.strip().lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(f'launch argument {name}: expected {KINDS[kind]}, got {text!r}') from None
