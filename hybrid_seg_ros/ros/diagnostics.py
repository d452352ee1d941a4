"""What the node says of itself on /diagnostics: pure functions from its state to DiagnosticStatus messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from hybrid_seg_ros.inference import SegmentationPipeline
from hybrid_seg_ros.ros.camera_monitor import CameraHealth

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
"""Of type bytes in Python, as the message's `level` is."""

_ERROR_AFTER_TIMEOUTS = 5


@dataclass(frozen=True)
class ModelState:
    """What runs, or why nothing does."""

    lifecycle: str
    failure: str = ''
    name: str = ''
    variant: str = ''
    keep: str = ''
    threshold: float = 0.0
    backend: str = ''
    device: str = ''
    precision: str = ''

    @classmethod
    def of(cls, pipeline: SegmentationPipeline, lifecycle: str, failure: str) -> ModelState:
        """Describe a loaded model."""
        keep = pipeline.budget.keep
        return cls(
            lifecycle,
            failure,
            name=pipeline.spec.name,
            variant=str(pipeline.variant),
            keep='by threshold' if keep is None else ', '.join(map(str, keep)),
            threshold=pipeline.budget.threshold,
            backend=pipeline.backend_name,
            device=pipeline.device_name,
            precision=pipeline.precision,
        )


@dataclass(frozen=True)
class InputState:
    """The image topic as the node sees it. `is_listening` is false while the node is not active or not enabled.

    `publishers` counts those of the right message type, `other_types` lists what else is published under the name.
    """

    topic: str
    publishers: int
    dropped: int
    is_listening: bool
    timeout_s: float
    other_types: tuple[str, ...] = ()


class Diagnostics:
    """Builds the statuses of one node; `node_name` and `hardware_id` are the same in all of them."""

    def __init__(self, node_name: str, hardware_id: str) -> None:
        self._node_name, self._hardware_id = node_name, hardware_id

    def model_statuses(self, model: ModelState) -> list[DiagnosticStatus]:
        """Return the status on the model."""
        return [self._status('model', *model_verdict(model), _model_values(model))]

    def camera_statuses(self, source: InputState, health: CameraHealth) -> list[DiagnosticStatus]:
        """Return one status each on a camera's images, their segmentation and its tokens."""
        return [
            self._status('images', *image_verdict(source, health), _image_values(source, health)),
            self._status('segmentation', *segmentation_verdict(health), _segmentation_values(health)),
            self._status('tokens', OK, _token_summary(health), _token_values(health)),
        ]

    def _status(self, task: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=level,
            name=f'{self._node_name}: {task}',
            message=message,
            hardware_id=self._hardware_id,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )


def model_verdict(model: ModelState) -> tuple[bytes, str]:
    """Return level and message on the model: ERROR where the last transition failed."""
    if model.failure:
        return ERROR, f'{model.lifecycle}: {model.failure}'
    if not model.name:
        return OK, model.lifecycle
    return OK, f'{model.lifecycle}: {model.name}, {model.variant}, {model.backend} on {model.device}'


def image_verdict(source: InputState, health: CameraHealth) -> tuple[bytes, str]:
    """Return level and message on the images that come, worst news first."""
    if not source.is_listening:
        return OK, 'not listening: the node is inactive or disabled'
    if health.incompatible_qos:
        return ERROR, health.incompatible_qos
    if health.since_image_s is not None and health.since_image_s > source.timeout_s:
        level = ERROR if health.since_image_s > _ERROR_AFTER_TIMEOUTS * source.timeout_s else WARN
        publishers = f'{source.publishers} publisher{"" if source.publishers == 1 else "s"}'
        if source.other_types:
            publishers += f', but others of {", ".join(source.other_types)}: see the parameter image_transport'
        return level, f'no image for {health.since_image_s:.1f} s on {source.topic} ({publishers})'
    if health.recent_bad_frame:
        return WARN, f'bad frame: {health.recent_bad_frame}'
    return OK, f'{health.fps_in:.1f} images/s on {source.topic}'


def segmentation_verdict(health: CameraHealth) -> tuple[bytes, str]:
    """Return level and message on segmentation: ERROR while the last attempt failed."""
    if health.failure:
        return ERROR, f'segmentation failed: {health.failure}'
    if not health.segmented:
        return OK, 'no image segmented yet'
    return OK, f'{health.fps_out:.1f} masks/s, {health.latency_ms["total"][0]:.1f} ms'


def _model_values(model: ModelState) -> dict[str, Any]:
    return {
        'lifecycle_state': model.lifecycle,
        'model': model.name,
        'variant': model.variant,
        'keep': model.keep,
        'threshold': model.threshold,
        'backend': model.backend,
        'device': model.device,
        'precision': model.precision,
    }


def _image_values(source: InputState, health: CameraHealth) -> dict[str, Any]:
    return {
        'topic': source.topic,
        'publishers': source.publishers,
        'fps_in': health.fps_in,
        'received': health.received,
        'dropped': source.dropped,
        'bad_frames': health.bad_frames,
        'seconds_since_last_image': '' if health.since_image_s is None else health.since_image_s,
    }


def _segmentation_values(health: CameraHealth) -> dict[str, Any]:
    values: dict[str, Any] = {
        'fps_out': health.fps_out,
        'segmented': health.segmented,
        'failures': health.failures,
    }
    for step, (p50, p95) in health.latency_ms.items():
        values[f'{step}_p50_ms'], values[f'{step}_p95_ms'] = p50, p95
    return values


def _token_summary(health: CameraHealth) -> str:
    if health.tokens is None:
        return 'no image segmented yet'
    return ' -> '.join(f'{count} {stage}' for stage, count in health.tokens.stages.items())


def _token_values(health: CameraHealth) -> dict[str, Any]:
    if health.tokens is None:
        return {}
    return {**health.tokens.stages, 'merged_windows': health.tokens.merged_windows}


def _text(value: Any) -> str:
    return f'{value:.2f}' if isinstance(value, float) else str(value)
