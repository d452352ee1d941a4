"""Find out whether there is a cv_bridge that works, by using it: its version number does not tell.

The package of that name on PyPI is ROS 1's, and the one from apt breaks with numpy 2 (vision_opencv#535).
"""

from __future__ import annotations

import functools
from typing import Any, Optional

import numpy as np


def working_bridge() -> Optional[Any]:
    """Return a CvBridge that converts correctly, or None. Probed once, at the first call."""
    return _probe()[0]


def problem() -> str:
    """Return why there is no working bridge, '' if there is one."""
    return _probe()[1]


@functools.lru_cache(maxsize=1)
def _probe() -> tuple[Optional[Any], str]:
    try:
        from cv_bridge import CvBridge
        from sensor_msgs.msg import Image

        message = Image(height=1, width=2, encoding='bgr8', step=6)
        message.data.frombytes(bytes([1, 2, 3, 4, 5, 6]))
        bridge = CvBridge()
        result = np.asarray(bridge.imgmsg_to_cv2(message, 'rgb8'))
    except Exception as error:  # a broken binary module fails in any way; all of them mean that it is unusable
        return None, f'{type(error).__name__}: {error}'
    if result.tolist() != [[[3, 2, 1], [6, 5, 4]]]:
        return None, f'it converts wrongly: bgr 1 2 3, 4 5 6 became {result.tolist()}'
    return bridge, ''
