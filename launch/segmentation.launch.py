"""Start the segmentation node: ros2 launch hybrid_seg_ros segmentation.launch.py image:=/camera/image_raw."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'hybrid_seg_ros'

NODE_PARAMETERS = {
    'model_path': 'string',
    'backend': 'string',
    'device': 'string',
    'precision': 'string',
    'engine_path': 'string',
    'num_threads': 'integer',
    'cameras': 'string array',
    'schedule': 'string',
    'batch_wait_ms': 'double',
    'image_transport': 'string',
    'image_reliability': 'string',
    'expected_fps': 'double',
    'mask_size': 'string',
    'image_timeout_s': 'double',
    'exit_after_failures': 'integer',
    'executor': 'string',
    'autostart': 'boolean',
    'variant': 'string',
    'keep': 'double',
    'threshold': 'double',
    'merge_by': 'string',
    'look_every': 'integer',
    'target_latency_ms': 'double',
    'target_fps': 'double',
    'operating_points': 'string',
    'overlay_alpha': 'double',
    'overlay_legend': 'boolean',
    'enabled': 'boolean',
}
"""Launch arguments that stand for parameters of the same name, and their types. Empty ones leave it to params_file."""

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
        DeclareLaunchArgument(
            'model_path', default_value='',
            description='Model YAML, package://PACKAGE/models/NAME.yaml, or the name of a shipped model.',
        ),
        DeclareLaunchArgument(
            'backend', default_value='', choices=['', 'auto', 'pytorch', 'onnxruntime', 'openvino', 'tensorrt'],
            description='What runs the network. auto: what is fastest here of what is installed.',
        ),
        DeclareLaunchArgument(
            'device', default_value='',
            description='Where the network runs: auto, cpu, cuda, cuda:1 ...',
        ),
        DeclareLaunchArgument(
            'precision', default_value='', choices=['', 'auto', 'float32', 'bfloat16', 'float16'],
            description='Number format of the network.',
        ),
        DeclareLaunchArgument(
            'engine_path', default_value='',
            description='Graph or engine of hybrid_seg export or build-engine. Empty: one is made, once, and kept.',
        ),
        DeclareLaunchArgument(
            'num_threads', default_value='',
            description='CPU threads of the network. 0: one per core.',
        ),
        DeclareLaunchArgument(
            'cameras', default_value='',
            description='Several cameras: names with commas between, each with its topic where that differs: '
            'front:=/front/image_raw,left.',
        ),
        DeclareLaunchArgument(
            'schedule', default_value='', choices=['', 'turns', 'batch'],
            description='How several cameras share the model: one after the other, or in one batch.',
        ),
        DeclareLaunchArgument(
            'batch_wait_ms', default_value='',
            description='Longest time that a batch waits for the images of all cameras.',
        ),
        DeclareLaunchArgument(
            'image_transport', default_value='', choices=['', 'raw', 'compressed'],
            description='How images come: sensor_msgs/Image or CompressedImage.',
        ),
        DeclareLaunchArgument(
            'image_reliability', default_value='', choices=['', 'auto', 'best_effort', 'reliable'],
            description='QoS that images are received with. auto: reliable where every publisher offers it.',
        ),
        DeclareLaunchArgument(
            'expected_fps', default_value='',
            description='Rate at which the camera publishes; diagnostics warn if far fewer images come. 0: unknown.',
        ),
        DeclareLaunchArgument(
            'mask_size', default_value='', choices=['', 'network', 'image'],
            description='Size of the mask: of the image inside the network, or of the camera image.',
        ),
        DeclareLaunchArgument(
            'image_timeout_s', default_value='',
            description='Diagnostics warn after this many seconds without an image.',
        ),
        DeclareLaunchArgument(
            'exit_after_failures', default_value='',
            description='End the node after so many failed images in a row, for respawn to start it anew. 0: never.',
        ),
        DeclareLaunchArgument(
            'executor', default_value='', choices=['', 'single', 'events'],
            description='Executor of rclpy. events takes less processor time per image; experimental, from Jazzy on.',
        ),
        DeclareLaunchArgument(
            'autostart', default_value='', choices=['', *BOOLEANS],
            description='Configure and activate at start. false: leave it to a lifecycle manager.',
        ),
        DeclareLaunchArgument(
            'variant', default_value='', choices=['', 'dense', 'cts', 'dtop@6+8', 'dtop@8', 'hybrid@6+8', 'hybrid@8'],
            description='Which tokens merge before the encoder and which leave it early.',
        ),
        DeclareLaunchArgument(
            'keep', default_value='',
            description='Tokens that stay at a pruning layer: fraction up to 1.0, or count. 0: by threshold. -1: as '
            'the model says.',
        ),
        DeclareLaunchArgument(
            'merge_by', default_value='', choices=['', 'policy', 'previous', 'auto'],
            description='Who chooses the windows that merge: the policy network, or the answer to the frame before.',
        ),
        DeclareLaunchArgument(
            'look_every', default_value='',
            description='Frames within which each merged part of the image is seen in single tokens again.',
        ),
        DeclareLaunchArgument(
            'threshold', default_value='',
            description='Confidence from which tokens leave early. 0: as the model says.',
        ),
        DeclareLaunchArgument(
            'target_latency_ms', default_value='',
            description='Time from image to mask to hold, by pruning as much as it takes. 0: none.',
        ),
        DeclareLaunchArgument(
            'target_fps', default_value='',
            description='Masks per second to hold, by pruning as much as it takes. 0: none.',
        ),
        DeclareLaunchArgument(
            'operating_points', default_value='',
            description='Table of operating points to choose from to hold the target.',
        ),
        DeclareLaunchArgument(
            'overlay_alpha', default_value='',
            description='Share of the class colours in the overlay, 0 to 1.',
        ),
        DeclareLaunchArgument(
            'overlay_legend', default_value='', choices=['', *BOOLEANS],
            description='Draw a legend of the classes into the overlay.',
        ),
        DeclareLaunchArgument(
            'enabled', default_value='', choices=['', *BOOLEANS],
            description='Segment images. false: stay active, but leave images alone.',
        ),
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


def make_node(context):
    """Return the node, with the parameters that were given on top of params_file."""
    texts = {name: LaunchConfiguration(name).perform(context) for name in NODE_PARAMETERS}
    params_file = LaunchConfiguration('params_file').perform(context)
    if not os.path.isfile(params_file):
        raise ValueError(f'launch argument params_file: expected a file, got {params_file!r}')
    given = {name: parameter_value(name, NODE_PARAMETERS[name], text) for name, text in texts.items() if text}
    sim_time = LaunchConfiguration('use_sim_time').perform(context)
    if sim_time:
        given['use_sim_time'] = parameter_value('use_sim_time', 'boolean', sim_time)
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
        respawn=parameter_value('respawn', 'boolean', LaunchConfiguration('respawn').perform(context)),
        respawn_delay=parameter_value('respawn_delay', 'double', LaunchConfiguration('respawn_delay').perform(context)),
        output='screen',
        emulate_tty=True,
    )  # fmt: skip
    return [node]


def parameter_value(name, kind, text):
    """Return the text of a launch argument as a value of the parameter's type.

    Raises ValueError if it is none. As text it would reach the node as a string, which it refuses for a number.
    """
    if kind == 'string array':
        return [item.strip() for item in text.split(',')]
    if kind == 'string':
        return text
    read = {'integer': int, 'double': float, 'boolean': {'true': True, 'false': False}.__getitem__}[kind]
    try:
        return read(text.strip().lower())
    except (KeyError, ValueError):
        raise ValueError(f'launch argument {name}: expected {kind}, got {text!r}') from None
