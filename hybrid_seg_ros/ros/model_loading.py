"""Load the model that the parameters name, with its table of operating points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hybrid_seg_ros.inference import SegmentationPipeline, load_pipeline
from hybrid_seg_ros.inference.points_table import OperatingPoint, default_points_path, load_operating_points
from hybrid_seg_ros.ros.frame_worker import Model
from hybrid_seg_ros.ros.model_path import resolve_model_path
from hybrid_seg_ros.ros.parameters import NodeConfig
from hybrid_seg_ros.ros.process import limit_threads

Load = Callable[[NodeConfig], SegmentationPipeline]


def load_configured(config: NodeConfig) -> SegmentationPipeline:
    """Load the pipeline that the parameters name. Raises what load_pipeline raises."""
    limit_threads(config.num_threads)
    pipeline = load_pipeline(
        resolve_model_path(config.model_path), backend=config.backend, device=config.device,
        precision=config.precision, output_size=config.mask_size, graph=config.engine_path or None,
    )  # fmt: skip
    limit_threads(config.num_threads)
    return pipeline


def load_model(config: NodeConfig, load: Load = load_configured) -> Model:
    """Load pipeline and operating points. Raises what `load` and find_points raise."""
    pipeline = load(config)
    try:
        points, problem = find_points(config.operating_points, resolve_model_path(config.model_path), pipeline)
    except BaseException:
        pipeline.close()
        raise
    return Model(pipeline, points, problem)


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
