"""Start the segmentation node: ros2 launch hybrid_seg_ros segmentation.launch.py image:=/camera/image_raw."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'hybrid_seg_ros'

NODE_PARAMETERS = (
    'model_path', 'variant', 'backend', 'device', 'precision', 'engine_path', 'image_transport', 'mask_size',
)
"""Launch arguments that stand for parameters of the same name; empty ones leave it to params_file."""

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
            description='Camera topic. With compressed transport its /compressed is used, as image_transport does.',
        ),
        DeclareLaunchArgument(
            'image_transport', default_value='', choices=['', 'raw', 'compressed'],
            description='How images come: sensor_msgs/Image or CompressedImage. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the node, one per camera for instance.',
        ),
        DeclareLaunchArgument(
            'params_file', default_value=PathJoinSubstitution([share, 'config', 'segmentation.yaml']),
            description='YAML file of node parameters. The arguments below, where not empty, go before it.',
        ),
        DeclareLaunchArgument(
            'model_path', default_value='',
            description='Model YAML, package://PACKAGE/models/NAME.yaml, or the name of a shipped model.',
        ),
        DeclareLaunchArgument(
            'variant', default_value='',
            choices=['', 'dense', 'cts', 'dtop@6+8', 'dtop@8', 'hybrid@6+8', 'hybrid@8'],
            description='Which tokens merge before the encoder and which leave it early.',
        ),
        DeclareLaunchArgument(
            'backend', default_value='', choices=['', 'pytorch', 'onnxruntime', 'openvino', 'tensorrt'],
            description='What runs the network.',
        ),
        DeclareLaunchArgument(
            'device', default_value='', description='Where the network runs: cpu, cuda, cuda:1 ...',
        ),
        DeclareLaunchArgument(
            'precision', default_value='', choices=['', 'float32', 'bfloat16', 'float16'],
            description='Number format of the network.',
        ),
        DeclareLaunchArgument(
            'engine_path', default_value='',
            description='Graph or engine of hybrid_seg export or build-engine. Empty: one is made, once, and kept.',
        ),
        DeclareLaunchArgument(
            'mask_size', default_value='', choices=['', 'network', 'image'],
            description='Size of the mask: of the image inside the network, or of the camera image.',
        ),
        DeclareLaunchArgument(
            'use_fastdds_shm', default_value='false', choices=['true', 'false'],
            description='Give Fast DDS room for large images in shared memory. The camera driver needs the same file.',
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
    given = {name: LaunchConfiguration(name).perform(context) for name in NODE_PARAMETERS}
    node = Node(
        package=PACKAGE,
        executable='segmentation_node',
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration('params_file'), {name: value for name, value in given.items() if value}],
        remappings=[('image', LaunchConfiguration('image'))],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
        output='screen',
        emulate_tty=True,
    )
    return [node]
