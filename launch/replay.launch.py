"""Start the segmentation node and play a recorded drive to it: ros2 launch hybrid_seg_ros replay.launch.py."""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)  # fmt: skip
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

PACKAGE = 'hybrid_seg_ros'
BOOLEANS = ['true', 'false', 'True', 'False']


def generate_launch_description():
    """Declare the arguments; those of segmentation.launch.py can be given, too."""
    share = FindPackageShare(PACKAGE)
    return LaunchDescription([
        DeclareLaunchArgument(
            'bag', default_value=PathJoinSubstitution([share, 'bags', 'camvid_val']),
            description='rosbag2 to play: a folder, or a single .mcap or .db3 file.',
        ),
        DeclareLaunchArgument(
            'image', default_value='/camera/image',
            description='Camera topic of the bag, without /compressed.',
        ),
        DeclareLaunchArgument(
            'image_transport', default_value='compressed', choices=['raw', 'compressed'],
            description='What the bag holds: sensor_msgs/Image or CompressedImage.',
        ),
        DeclareLaunchArgument('rate', default_value='1.0', description='Speed: 2.0 is twice as fast as recorded.'),
        DeclareLaunchArgument(
            'loop', default_value='true', choices=BOOLEANS,
            description='Play again and again. Otherwise all ends with the bag.',
        ),
        DeclareLaunchArgument(
            'restamp', default_value='true', choices=BOOLEANS,
            description='Set header stamps to the present time, as a camera would.',
        ),
        DeclareLaunchArgument(
            'rviz', default_value='false', choices=BOOLEANS,
            description='Show camera, overlay, token map and mask in rviz2.',
        ),
        OpaqueFunction(function=make_rviz),  # first: where it fails, nothing has been started
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(PathJoinSubstitution([share, 'launch', 'segmentation.launch.py'])),
            launch_arguments={
                'image': LaunchConfiguration('image'),
                'image_transport': LaunchConfiguration('image_transport'),
            }.items(),
        ),
        OpaqueFunction(function=make_replay),
    ])  # fmt: skip


def make_rviz(context):
    """Return rviz2, if it is wanted. Raises RuntimeError where it is not installed."""
    if LaunchConfiguration('rviz').perform(context).lower() != 'true':
        return []
    try:
        get_package_prefix('rviz2')
    except PackageNotFoundError:
        distribution = os.environ.get('ROS_DISTRO', 'DISTRIBUTION')
        raise RuntimeError(f'rviz:=true needs rviz2: sudo apt install ros-{distribution}-rviz2') from None
    share = FindPackageShare(PACKAGE)
    view = PathJoinSubstitution([share, 'config', 'hybrid_seg.rviz'])
    return [Node(package='rviz2', executable='rviz2', arguments=['-d', view])]


def make_replay(context):
    """Return the replay as a process: as a Node it would be given arguments that only ROS nodes understand."""
    topic = LaunchConfiguration('image').perform(context)
    if LaunchConfiguration('image_transport').perform(context) == 'compressed':
        topic += '/compressed'
    given = {name: LaunchConfiguration(name).perform(context) for name in ('loop', 'restamp')}
    flags = [f'--{name}' for name, text in given.items() if text.lower() == 'true']
    replay = ExecuteProcess(
        cmd=[
            ExecutableInPackage(executable='hybrid_seg', package=PACKAGE), 'replay', LaunchConfiguration('bag'),
            '--topic', topic, '--rate', LaunchConfiguration('rate'), *flags,
        ],
        output='screen',
        on_exit=[Shutdown(reason='the replay has ended')],
    )  # fmt: skip
    return [replay]
