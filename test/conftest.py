"""What every test runs under: an own corner of the ROS network, nothing written to the home folder."""

from __future__ import annotations

import os
import tempfile

# Set before anything imports rclpy, and inherited by the processes that tests start. Domain ids above 101 can collide
# with ephemeral ports on Linux.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
_log_dir = tempfile.TemporaryDirectory(prefix='hybrid_seg_ros_log_')  # removed when Python ends
os.environ['ROS_LOG_DIR'] = _log_dir.name
os.environ['MPLCONFIGDIR'] = _log_dir.name  # matplotlib keeps its list of fonts there

if 'PYTEST_XDIST_WORKER' in os.environ:  # `make test` runs two workers: libraries must not use every core in each
    os.environ.setdefault('OMP_NUM_THREADS', '1')
