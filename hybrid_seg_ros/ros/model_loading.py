"""Load the model that the parameters name, with its table of operating points. It needs no rclpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hybrid_seg_ros.inference import SegmentationPipeline, load_pipeline
from hybrid_seg_ros.inference.points_table import OperatingPoint, default_points_path, load_operating_points
from hybrid_seg_ros.process_memory import limit_threads
from hybrid_seg_ros.ros.parameters import NodeConfig

Load = Callable[[NodeConfig], SegmentationPipeline]


@dataclass(frozen=True)
class Model:
    """The pipeline, its table of operating points, or why there is none."""

    pipeline: SegmentationPipeline
    points: tuple[OperatingPoint, ...] = ()
    points_problem: str = ''


def load_configured(config: NodeConfig) -> SegmentationPipeline:
    """Load the pipeline that the parameters name. Raises what load_pipeline raises."""
    limit_threads(config.num_threads or None)
    pipeline = load_pipeline(
        config.model_path, backend=config.backend, device=config.device,
        precision=config.precision, output_size=config.mask_size, graph=config.engine_path or None,
    )  # fmt: skip
    limit_threads(config.num_threads or None)
    return pipeline


def load_model(config: NodeConfig, load: Load = load_configured) -> Model:
    """Load pipeline and operating points that it can run. Raises what `load` raises.

    A table that the parameter `operating_points` names must be good: raises FileNotFoundError or ValueError. The one
    beside the model may be missing.
    """
    pipeline = load(config)
    given = config.operating_points
    try:
        path = Path(given).expanduser() if given else default_points_path(config.model_path)
        points = load_operating_points(path, pipeline.spec)
        for point in points:
            pipeline.check_operating_point(point.variant, point.budget)
    except BaseException as error:
        if not given and isinstance(error, (FileNotFoundError, ValueError)):
            return Model(pipeline, (), str(error))
        pipeline.close()
        raise
    return Model(pipeline, points)
