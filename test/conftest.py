"""What every test runs under: an own corner of the ROS network, nothing written to the home folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Set before anything imports rclpy, and inherited by the processes that tests start. Domain ids above 101 can collide
# with ephemeral ports on Linux.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
_log_dir = tempfile.TemporaryDirectory(prefix='hybrid_seg_ros_log_')  # removed when Python ends
os.environ['ROS_LOG_DIR'] = _log_dir.name
os.environ['MPLCONFIGDIR'] = _log_dir.name  # matplotlib keeps its list of fonts there

if 'PYTEST_XDIST_WORKER' in os.environ:  # `make test` runs two workers: libraries must not use every core in each
    os.environ.setdefault('OMP_NUM_THREADS', '1')


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    """Where tests run in parallel, keep a file's together, for their fixtures, and all of those over DDS.

    These wait for one another's processes; two of them at once would wait too long on a small machine.
    """
    if config.pluginmanager.hasplugin('xdist'):
        for item in items:
            folder = Path(item.path).parent
            item.add_marker(pytest.mark.xdist_group('ros' if folder.name == 'ros' else str(item.path)))
