"""Start the segmentation node and play a recorded drive to it: ros2 launch hybrid_seg_ros replay.launch.py."""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)  # fmt: skip
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

PACKAGE = 'hybrid_seg_ros'


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
            'loop', default_value='true', choices=['true', 'false'],
            description='Play again and again. Otherwise all ends with the bag.',
        ),
        DeclareLaunchArgument(
            'restamp', default_value='true', choices=['true', 'false'],
            description='Set header stamps to the present time, as a camera would.',
        ),
        DeclareLaunchArgument(
            'rviz', default_value='false', choices=['true', 'false'],
            description='Show camera, overlay, token map and mask in rviz2.',
        ),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(PathJoinSubstitution([share, 'launch', 'segmentation.launch.py'])),
            launch_arguments={
                'image': LaunchConfiguration('image'),
                'image_transport': LaunchConfiguration('image_transport'),
            }.items(),
        ),
        Node(
            package='rviz2',
            executable='rviz2',
            arguments=['-d', PathJoinSubstitution([share, 'config', 'hybrid_seg.rviz'])],
            condition=IfCondition(LaunchConfiguration('rviz')),
        ),
        OpaqueFunction(function=make_replay),
    ])  # fmt: skip


def make_replay(context):
    """Return the replay as a process: as a Node it would be given arguments that only ROS nodes understand."""
    topic = LaunchConfiguration('image').perform(context)
    if LaunchConfiguration('image_transport').perform(context) == 'compressed':
        topic += '/compressed'
    flags = [f'--{name}' for name in ('loop', 'restamp') if LaunchConfiguration(name).perform(context) == 'true']
    replay = ExecuteProcess(
        cmd=[
            ExecutableInPackage(executable='hybrid_seg', package=PACKAGE), 'replay', LaunchConfiguration('bag'),
            '--topic', topic, '--rate', LaunchConfiguration('rate'), *flags,
        ],
        output='screen',
        on_exit=[Shutdown(reason='the replay has ended')],
    )  # fmt: skip
    return [replay]
