"""What the node says of itself on /diagnostics: pure functions from its state to DiagnosticStatus messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from hybrid_seg_ros.inference import SegmentationPipeline
from hybrid_seg_ros.inference.point_keeper import PointState
from hybrid_seg_ros.ros.health.camera_monitor import CameraHealth
from hybrid_seg_ros.ros.health.machine_state import machine_verdict

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
"""Of type bytes in Python, as the message's `level` is."""

_ERROR_AFTER_TIMEOUTS = 5
_RECEIVED_SHARE = 0.8
"""Of the images that a camera publishes, what may arrive without a warning."""
_SHARED_MEMORY_BYTES = 512 * 1024
"""Fast DDS's default segment; best-effort messages that do not fit are sent in pieces, which get lost."""
_CLOCK_SKEW_S = 0.1


@dataclass(frozen=True)
class ModelState:
    """What runs, or why nothing does.

    `progress` says how far a transition is that takes long, `at_work_s` since when an image has been at work that
    should long be done; 0 if there is none.
    """

    lifecycle: str
    failure: str = ''
    progress: str = ''
    at_work_s: float = 0.0
    name: str = ''
    variant: str = ''
    keep: str = ''
    threshold: float = 0.0
    backend: str = ''
    device: str = ''
    precision: str = ''

    @classmethod
    def of(cls, pipeline: SegmentationPipeline, lifecycle: str, failure: str, at_work_s: float) -> ModelState:
        """Describe a loaded model."""
        keep = pipeline.budget.keep
        return cls(
            lifecycle,
            failure,
            at_work_s=at_work_s,
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

    `publishers` counts those of the right message type, `other_types` lists what else is published under the name;
    `elsewhere` is a topic of the other transport that somebody publishes. `is_without_clock`: use_sim_time is set and
    no time has come.
    """

    topic: str
    publishers: int
    dropped: int
    is_listening: bool
    timeout_s: float
    other_types: tuple[str, ...] = ()
    expected_fps: float = 0.0
    is_reliable: bool = False
    is_compressed: bool = False
    elsewhere: str = ''
    is_without_clock: bool = False


@dataclass(frozen=True)
class CameraState:
    """A camera's name, '' where there is only one, its input topic, and how its stream fares."""

    name: str
    source: InputState
    health: CameraHealth


@dataclass(frozen=True)
class NodeState:
    """The node at one moment. `point` says which operating point runs; None while there is no model."""

    model: ModelState
    point: Optional[PointState] = None
    cameras: Sequence[CameraState] = ()


def node_statuses(
    state: NodeState, machine: Mapping[str, Any], node_name: str, hardware_id: str
) -> list[DiagnosticStatus]:
    """Return a status on the model, the operating point, images, segmentation and tokens of each camera, the machine.

    `machine` is what MachineState reads. Names begin with the node's, and where cameras have names, the camera's.
    """

    def status(task: str, level_and_message: tuple[bytes, str], values: Mapping[str, Any]) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=level_and_message[0],
            name=f'{node_name}: {task}',
            message=level_and_message[1],
            hardware_id=hardware_id,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )

    statuses = [status('model', model_verdict(state.model), _model_values(state.model))]
    if state.point is not None:
        statuses.append(status('operating point', point_verdict(state.point), _point_values(state.point)))
    for camera in state.cameras:
        source, health = camera.source, camera.health
        prefix = f'{camera.name} ' if camera.name else ''
        statuses += [
            status(f'{prefix}images', image_verdict(source, health), _image_values(source, health)),
            status(f'{prefix}segmentation', segmentation_verdict(health), _segmentation_values(health)),
            status(f'{prefix}tokens', (OK, _token_summary(health)), _token_values(health)),
        ]
    return [*statuses, status('machine', machine_verdict(machine), machine)]


def model_verdict(model: ModelState) -> tuple[bytes, str]:
    """Return level and message on the model: ERROR where the last transition failed."""
    if model.failure:
        return ERROR, f'{model.lifecycle}: {model.failure}'
    if model.at_work_s > 0:
        return ERROR, (
            f'{model.lifecycle}: the backend hangs, an image has been at work for {model.at_work_s:.0f} s; deactivate, '
            f'or start the process anew'
        )
    if not model.name:
        return OK, f'{model.lifecycle}: {model.progress}' if model.progress else model.lifecycle
    runs_on = f'{model.backend} in {model.precision} on {model.device}'
    return OK, f'{model.lifecycle}: {model.name}, {model.variant}, {runs_on}'


def point_verdict(point: PointState) -> tuple[bytes, str]:
    """Return level and message on the operating point: ERROR where what was asked for cannot run."""
    runs = f'{point.point}: {point.reason}' if point.reason else point.point
    if point.problem:
        return ERROR, f'{point.problem}; {point.point} goes on'
    if point.is_missed:
        return WARN, f'the target of {point.target} is missed, even at the cheapest point; {point.point} goes on'
    if point.preparing:
        return OK, f'preparing {point.preparing}; meanwhile {runs}'
    return OK, runs


def image_verdict(source: InputState, health: CameraHealth) -> tuple[bytes, str]:
    """Return level and message on the images that come, worst news first."""
    if not source.is_listening:
        return OK, 'not listening: the node is inactive or disabled'
    if health.incompatible_qos and source.publishers > 0:
        return ERROR, health.incompatible_qos
    if health.since_image_s is not None and health.since_image_s > source.timeout_s:
        level = ERROR if health.since_image_s > _ERROR_AFTER_TIMEOUTS * source.timeout_s else WARN
        publishers = f'{source.publishers} publisher{"" if source.publishers == 1 else "s"}'
        if source.other_types:
            publishers += f', but others of {", ".join(source.other_types)}: see the parameter image_transport'
        elif source.elsewhere:
            publishers += f', but others of {source.elsewhere}: see the parameter image_transport'
        # camera_info of a camera that died or froze is as old as its last image
        comes = health.since_info_s is not None and health.since_info_s < health.since_image_s / 2
        cause = f'; its camera_info comes: {_loss_cause(source, health)}' if comes and source.publishers else ''
        return level, f'no image for {health.since_image_s:.1f} s on {source.topic} ({publishers}){cause}'
    if health.recent_bad_frame:
        return WARN, f'bad frame: {health.recent_bad_frame}'
    rate = f'{health.fps_in:.1f} images/s on {source.topic}'
    published = source.expected_fps or health.info_fps
    if 0 < health.fps_in < _RECEIVED_SHARE * published:
        return WARN, f'{rate}, of {published:.1f} published: {_loss_cause(source, health)}'
    if source.is_without_clock:
        return WARN, f'{rate}, but use_sim_time is set and nothing publishes /clock'
    age_s = health.stamp_age_s
    if age_s is not None and not -_CLOCK_SKEW_S <= age_s <= source.timeout_s:
        when = f'{age_s:.1f} s old' if age_s > 0 else f'{-age_s:.1f} s in the future'
        return WARN, f'{rate}, but stamped {when}: unsynchronised clocks, or a bag without use_sim_time'
    return OK, rate


def _loss_cause(source: InputState, health: CameraHealth) -> str:
    """Say what most likely keeps images from arriving."""
    if source.is_compressed or 0 < health.image_bytes <= _SHARED_MEMORY_BYTES:
        return 'the network or the processor is too slow for them'
    size = f'of {health.image_bytes / 1e6:.1f} MB ' if health.image_bytes else ''
    reliable = '' if source.is_reliable else ', or let it publish reliably, with image_reliability auto here'
    return (
        f'images {size}that do not fit into 0.5 MB of shared memory get lost; '
        f"give the camera's process config/fastdds_shm.xml{reliable}"
    )


def segmentation_verdict(health: CameraHealth) -> tuple[bytes, str]:
    """Return level and message on segmentation: ERROR while the last attempt failed."""
    if health.failure:
        return ERROR, f'segmentation failed: {health.failure}'
    if health.incompatible_subscriber:
        return WARN, health.incompatible_subscriber
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


def _point_values(point: PointState) -> dict[str, Any]:
    values: dict[str, Any] = {'point': point.point, 'reason': point.reason}
    if point.target:
        values.update({
            'target': point.target, 'p95_of_target': point.pressure, 'position': point.position,
            'miou': '' if point.miou is None else point.miou, 'gflops': '' if point.gflops is None else point.gflops,
            'changes': point.changes,
        })  # fmt: skip
    return {**values, 'preparing': point.preparing, 'problem': point.problem}


def _image_values(source: InputState, health: CameraHealth) -> dict[str, Any]:
    return {
        'topic': source.topic,
        'publishers': source.publishers,
        'fps_in': health.fps_in,
        'received': health.received,
        'dropped': source.dropped,
        'bad_frames': health.bad_frames,
        'decoder_complaints': health.decoder_complaints,
        'seconds_since_last_image': '' if health.since_image_s is None else health.since_image_s,
        'stamp_age_s': '' if health.stamp_age_s is None else health.stamp_age_s,
        'camera_info_fps': health.info_fps,
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
    by_side = {f'merged_{side}x{side}': count for side, count in health.tokens.windows.items()}
    chosen_by = {f'chosen by {who}': count for who, count in health.chosen_by.items()}
    return {**health.tokens.stages, 'merged_windows': health.tokens.merged_windows, **by_side, **chosen_by}


def _text(value: Any) -> str:
    return f'{value:.2f}' if isinstance(value, float) else str(value)
