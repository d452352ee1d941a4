"""The ROS 2 side: the only room that imports rclpy, message packages or cv_bridge."""
