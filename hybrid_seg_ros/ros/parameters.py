"""The node's parameters: each declared once, with description and range, and read into a frozen NodeConfig."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Optional

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterUninitializedException
from rclpy.node import Node
from rclpy.parameter import Parameter

from hybrid_seg_ros.inference.backends import AUTO, BACKENDS, PRECISIONS
from hybrid_seg_ros.inference.film import LOOK_EVERY, MERGE_BY
from hybrid_seg_ros.inference.pipeline import OUTPUT_SIZES
from hybrid_seg_ros.model_spec import PAPER_VARIANTS
from hybrid_seg_ros.ros.camera_topics import cameras_problem
from hybrid_seg_ros.ros.live_settings import LiveSettings, keep_problem, variant_problem
from hybrid_seg_ros.ros.spinning import EXECUTORS
from hybrid_seg_ros.ros.turns import SCHEDULES

RELIABILITIES = ('auto', 'best_effort', 'reliable')
IMAGE_TRANSPORTS = ('raw', 'compressed')

LIVE = 'Live: takes effect at the next frame.'
CONFIGURE = 'Read when the node is configured; can be changed while it is unconfigured.'
START = 'Read once, at start.'


@dataclass(frozen=True)
class NodeConfig:
    """The parameters that are read once, when the node is configured."""

    model_path: str
    backend: str
    device: str
    precision: str
    engine_path: str
    operating_points: str
    num_threads: int
    cameras: tuple[str, ...]
    schedule: str
    batch_wait_ms: float
    image_transport: str
    image_reliability: str
    mask_size: str
    image_timeout_s: float
    expected_fps: float
    exit_after_failures: int


@dataclass(frozen=True)
class Declaration:
    """A parameter. `when` is LIVE, CONFIGURE or START; `legal` lists the values of a closed choice."""

    name: str
    default: Any
    description: str
    when: str
    legal: tuple[str, ...] = ()
    low_high: Optional[tuple[float, float]] = None
    problem: Optional[Callable[[Any], str]] = None

    def descriptor(self) -> ParameterDescriptor:
        """Return what `ros2 param describe` shows, and what rclpy enforces: range and read_only."""
        descriptor = ParameterDescriptor(description=self.description, read_only=self.when == START)
        descriptor.additional_constraints = f'One of: {", ".join(self.legal)}. {self.when}' if self.legal else self.when
        if self.low_high is not None and isinstance(self.default, int):
            descriptor.integer_range = [IntegerRange(from_value=self.low_high[0], to_value=self.low_high[1])]
        elif self.low_high is not None:
            low, high = map(float, self.low_high)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        # people write `keep: 300` and `threshold: 1`, which ROS 2 reads as integers; refusal() checks these
        descriptor.dynamic_typing = isinstance(self.default, float)
        return descriptor

    def refusal(self, value: Any) -> str:
        """Return why `value` is refused, with the legal values; '' if it is legal."""
        if self.legal and value not in self.legal:
            return f'{self.name}: unknown value {value!r}; legal are {", ".join(self.legal)}'
        if isinstance(self.default, float):
            low, high = self.low_high
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                return f'{self.name}: expected a number from {low} to {high}, got {value!r}'
        return self.problem(value) if self.problem else ''


DECLARATIONS = (
    Declaration(
        'model_path', '',
        'Model: path of its YAML file, package://PACKAGE/models/NAME.yaml, or the name of a model that comes with this '
        'package. Empty: the default one.', CONFIGURE,
    ),
    Declaration(
        'backend', AUTO, 'What runs the network. auto: what is fastest on this machine of what is installed, within '
        'device and precision; the log and diagnostics say which.', CONFIGURE, legal=(AUTO, *BACKENDS),
    ),
    Declaration('device', AUTO, 'Where the network runs: auto, cpu, cuda, cuda:1 ...', CONFIGURE),
    Declaration('precision', AUTO, 'Number format of the network.', CONFIGURE, legal=(AUTO, *PRECISIONS)),
    Declaration(
        'engine_path', '', 'Graph or engine that `hybrid_seg export` or `build-engine` wrote, with its own variant and '
        'token budget. Empty: backends other than pytorch make theirs, once, and keep them in ~/.cache.', CONFIGURE,
    ),
    Declaration(
        'operating_points', '', 'Table that target_latency_ms and target_fps choose from: a file that `hybrid_seg '
        "choose-points` wrote. Empty: the model's own, NAME.points.yaml beside its YAML file.", CONFIGURE,
    ),
    Declaration('num_threads', 0, 'CPU threads of the network. 0: one per core.', CONFIGURE, low_high=(0, 256)),
    Declaration(
        'cameras', [''], 'Cameras that share the model, each with outputs below ~/NAME: NAME for the topic NAME/image, '
        'or NAME:=TOPIC. None: one camera on the topic `image`, with outputs below ~.', CONFIGURE,
        problem=cameras_problem,
    ),
    Declaration(
        'schedule', 'turns', 'How several cameras share the model. turns: one after the other, each with its newest '
        'frame; batch: all at once.', CONFIGURE, legal=SCHEDULES,
    ),
    Declaration(
        'batch_wait_ms', 10.0, 'How long the first frame of a batch waits for those of the other cameras; never for '
        'one that has been silent for image_timeout_s.', CONFIGURE, low_high=(0.0, 1000.0),
    ),
    Declaration(
        'image_transport', 'raw', 'raw: sensor_msgs/Image on `image`; compressed: sensor_msgs/CompressedImage (JPEG, '
        'PNG) on `image`/compressed.', CONFIGURE, legal=IMAGE_TRANSPORTS,
    ),
    Declaration(
        'image_reliability', 'auto', 'QoS asked of the image topic: reliable has lost pieces of large images sent '
        'again, and needs a camera that offers it; best_effort receives from any; auto: reliable where every publisher '
        'offers it.', CONFIGURE, legal=RELIABILITIES,
    ),
    Declaration(
        'mask_size', 'network', 'Size of mask, confidence and pictures. network: of the image inside the network, '
        'a mask small enough for the default shared memory of DDS; image: of the camera image.', CONFIGURE,
        legal=OUTPUT_SIZES[::-1],
    ),
    Declaration(
        'image_timeout_s', 1.0, 'Diagnostics turn WARN after this many seconds without an image, ERROR after five '
        'times as many.', CONFIGURE, low_high=(0.1, 3600.0),
    ),
    Declaration(
        'expected_fps', 0.0, 'Rate at which each camera publishes: diagnostics warn if much less arrives. 0: judged by '
        'the rate of camera_info, where there is one.', CONFIGURE, low_high=(0.0, 10000.0),
    ),
    Declaration(
        'exit_after_failures', 0, 'End the process, with status 1, after so many images in a row that could not be '
        'segmented: for a supervisor that starts it anew. 0: never.', CONFIGURE, low_high=(0, 1000000),
    ),
    Declaration(
        'executor', 'single', 'Executor of rclpy. single: that of every distribution; events: less processor time per '
        'image, experimental, from Jazzy on.', START, legal=EXECUTORS,
    ),
    Declaration('autostart', True, 'Configure and activate at start, without a lifecycle manager.', START),
    Declaration(
        'variant', '', f'Which tokens merge and which leave early: {", ".join(PAPER_VARIANTS)}. Empty: the '
        "model's own.", LIVE, problem=variant_problem,
    ),
    Declaration(
        'keep', -1.0, 'Tokens that stay at each pruning layer: up to 1.0 a fraction, from 2 on a count. 0: by '
        "threshold. -1: the model's own rule.", LIVE, low_high=(-1.0, 65536.0), problem=keep_problem,
    ),
    Declaration(
        'threshold', 0.0, 'Confidence from which tokens leave early, unless `keep` is above 0. 0: the '
        "model's own.", LIVE, low_high=(0.0, 1.0),
    ),
    Declaration(
        'merge_by', 'policy', 'Who chooses which windows merge. policy: the policy network, for each frame; previous: '
        'the answer to the frame before, where it can be trusted; auto: that, while frames come faster than 3 a '
        'second.', LIVE, legal=MERGE_BY,
    ),
    Declaration(
        'look_every', LOOK_EVERY, 'Frames within which each merged part of the image is seen in single tokens again, '
        'where the frame before chooses.', LIVE, low_high=(2, 1000),
    ),
    Declaration(
        'target_latency_ms', 0.0, 'Latency budget: from the receipt of an image to its mask. Above 0, variant, keep '
        'and threshold are left aside, and the most accurate operating point that keeps p95 inside is chosen.', LIVE,
        low_high=(0.0, 60000.0),
    ),
    Declaration(
        'target_fps', 0.0, 'Budget as a rate: masks per second of each camera. 0: none. With target_latency_ms, both '
        'are kept.', LIVE, low_high=(0.0, 1000.0),
    ),
    Declaration('overlay_alpha', 0.5, 'Share of the class colours in the overlay.', LIVE, low_high=(0.0, 1.0)),
    Declaration('overlay_legend', False, 'Write names and colours of the classes in view into the overlay.', LIVE),
    Declaration('enabled', True, 'Segment images. False: stay active, but leave images alone.', LIVE),
)  # fmt: skip


_BY_NAME = {declaration.name: declaration for declaration in DECLARATIONS}


def declare_parameters(node: Node) -> None:
    """Declare all parameters. Raises rclpy's ParameterException for start values of wrong type or out of range."""
    for declaration in DECLARATIONS:
        node.declare_parameter(declaration.name, declaration.default, declaration.descriptor())


def read_config(node: Node) -> NodeConfig:
    """Return the present values. Raises ValueError that names the legal ones, for live parameters, too."""
    for declaration in DECLARATIONS:
        refusal = declaration.refusal(_value(node, declaration))
        if refusal:
            raise ValueError(refusal)
    return NodeConfig(**_values(node, NodeConfig))


def read_live_settings(node: Node) -> LiveSettings:
    """Return the present values of the live parameters; cheap enough for every frame."""
    return LiveSettings(**_values(node, LiveSettings))


def check_parameters(
    parameters: Sequence[Parameter], is_configured: bool, live_problem: Callable[[Mapping[str, Any]], str]
) -> SetParametersResult:
    """Judge a set request, after rclpy has checked types and ranges; parameters that are not ours pass.

    `live_problem(values)` says what the loaded model has against new values of live parameters, taken together; ''
    for nothing.
    """
    live: dict[str, Any] = {}
    refusal = ''
    for parameter in parameters:
        declaration = _BY_NAME.get(parameter.name)
        if declaration is None:
            continue
        refusal = refusal or declaration.refusal(parameter.value)
        if not refusal and declaration.when == CONFIGURE and is_configured:
            refusal = f'{parameter.name}: fixed while the node is configured; cleanup, set it, configure'
        if declaration.when == LIVE:
            live[parameter.name] = parameter.value
    if not refusal and live:
        refusal = live_problem(live)
    return SetParametersResult(successful=not refusal, reason=refusal)


def _values(node: Node, cls: type) -> dict[str, Any]:
    return {field.name: _value(node, _BY_NAME[field.name]) for field in fields(cls)}


def _value(node: Node, declaration: Declaration) -> Any:
    try:
        return node.get_parameter(declaration.name).value
    except ParameterUninitializedException:  # an empty array, which has no type
        return declaration.default
