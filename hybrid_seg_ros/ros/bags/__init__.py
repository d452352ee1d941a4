"""Bags: read, damaged ones too, and written, with ground truth; none of it needs ROS 2."""
