"""Find a model's table of operating points."""

from __future__ import annotations

from pathlib import Path

from hybrid_seg_ros.inference import SegmentationPipeline
from hybrid_seg_ros.inference.operating_points import OperatingPoint, default_points_path, load_operating_points


def find_points(
    given: str, model_path: Path, pipeline: SegmentationPipeline
) -> tuple[tuple[OperatingPoint, ...], str]:
    """Return the points of the table that the pipeline can run, and why there are none where there are none.

    `given` is the parameter `operating_points`; a table that is named must be good: raises FileNotFoundError or
    ValueError. The one beside the model may be missing.
    """
    path = Path(given).expanduser() if given else default_points_path(model_path)
    try:
        points = load_operating_points(path, pipeline.spec)
        for point in points:
            pipeline.check_operating_point(point.variant, point.budget)
    except (FileNotFoundError, ValueError) as error:
        if given:
            raise
        return (), str(error)
    return points, ''
