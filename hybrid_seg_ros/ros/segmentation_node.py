"""The program segmentation_node: a signal ends it in order from here on, also while libraries are being loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from hybrid_seg_ros.ros.process import stop_event

if TYPE_CHECKING:
    from hybrid_seg_ros.ros.model_loading import Load


def main(args: Optional[Sequence[str]] = None, load: Optional[Load] = None) -> int:
    """Run the node until SIGINT or SIGTERM; return 0, or 1 if it could not be made or had to give up.

    `load` makes the pipeline of a configuration.
    """
    stop = stop_event()
    from hybrid_seg_ros.ros.lifecycle_node import run
    from hybrid_seg_ros.ros.model_loading import load_configured

    return 0 if stop.is_set() else run(args, load or load_configured, stop)


if __name__ == '__main__':
    sys.exit(main())
