"""What every test runs under: an own corner of the ROS network, nothing written to the home folder."""

from __future__ import annotations

import os
import tempfile

from hybrid_seg_ros.ros.play.node_process import reserve_domain

# Set before anything imports rclpy, and inherited by the processes that tests start. Reserved, so that no command that
# the other worker starts has the same.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
_domain = reserve_domain()
os.environ['ROS_DOMAIN_ID'] = str(_domain.domain_id)
_log_dir = tempfile.TemporaryDirectory(prefix='hybrid_seg_ros_log_')  # removed when Python ends
os.environ['ROS_LOG_DIR'] = _log_dir.name
os.environ['MPLCONFIGDIR'] = _log_dir.name  # matplotlib keeps its list of fonts there
os.environ['HYBRID_SEG_CACHE_DIR'] = _log_dir.name

if 'PYTEST_XDIST_WORKER' in os.environ:  # `make test` runs two workers: libraries must not use every core in each
    os.environ.setdefault('OMP_NUM_THREADS', '1')
