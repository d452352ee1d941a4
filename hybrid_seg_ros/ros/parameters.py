"""The node's parameters. The fields below are their one home: name, default, range, legal values and description.

The node, the launch file's arguments, config/segmentation.yaml and the table in docs/node.md derive from them, the last
two by tools/write_parameters.py.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from hybrid_seg_ros.inference.backends import AUTO, BACKENDS, PRECISIONS
from hybrid_seg_ros.inference.film import LOOK_EVERY, MERGE_BY
from hybrid_seg_ros.inference.latency_budget import LatencyTarget
from hybrid_seg_ros.inference.pipeline import OUTPUT_SIZES, choose_budget
from hybrid_seg_ros.inference.point_keeper import Wanted
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, ModelSpec, ModelSpecError, TokenBudget, Variant
from hybrid_seg_ros.ros.camera_topics import cameras_problem

RELIABILITIES = ('auto', 'best_effort', 'reliable')
IMAGE_TRANSPORTS = ('raw', 'compressed')
SCHEDULES = ('turns', 'batch')
EXECUTORS = ('single', 'events')

CONFIGURE = 'Read when the node is configured; can be changed while it is unconfigured.'
START = 'Read once, at start.'
LIVE = 'Live: takes effect at the next frame.'


@dataclass(frozen=True)
class Declaration:
    """A parameter. `when` is CONFIGURE, START or LIVE; `legal` lists the values of a closed choice."""

    name: str
    default: Any
    description: str
    when: str
    legal: tuple[str, ...] = ()
    low_high: Optional[tuple[float, float]] = None
    problem: Optional[Callable[[Any], str]] = None

    def refusal(self, value: Any) -> str:
        """Return why `value` is refused, with the legal values; '' if it is legal."""
        if self.legal and value not in self.legal:
            return f'{self.name}: unknown value {value!r}; legal are {", ".join(self.legal)}'
        if isinstance(self.default, float):
            low, high = self.low_high
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                return f'{self.name}: expected a number from {low} to {high}, got {value!r}'
        return self.problem(value) if self.problem else ''


def variant_problem(value: str) -> str:
    """Return what is wrong with the name of a variant, '' if nothing is or it is empty."""
    try:
        if value:
            Variant.parse(value)
    except ModelSpecError as error:
        return str(error)
    return ''


def keep_problem(value: float) -> str:
    """Return what is wrong with a value of `keep`, '' if nothing is."""
    if value in (-1.0, 0.0) or 0.0 < value <= 1.0 or (value >= 2.0 and value == round(value)):
        return ''
    return f"keep: expected -1 (the model's own), 0 (by threshold), a fraction up to 1.0 or a whole count, got {value}"


def _parameter(default: Any, description: str, **limits: Any) -> Any:
    """Return the field of a parameter; `limits` are `legal`, `low_high` and `problem` of its Declaration."""
    return field(default_factory=lambda: default, metadata={'default': default, 'description': description, **limits})


@dataclass(frozen=True)
class NodeConfig:
    """The parameters that are read when the node is configured."""

    model_path: str = _parameter(
        '', 'Model: path of its YAML file, package://PACKAGE/models/NAME.yaml, or the name of a model that comes with '
        'this package. Empty: segvit_small_camvid.',
    )
    backend: str = _parameter(
        AUTO, 'What runs the network. auto: what is fastest on this machine of what is installed, within device and '
        'precision; the log and diagnostics say which.', legal=(AUTO, *BACKENDS),
    )
    device: str = _parameter(AUTO, 'Where the network runs: auto, cpu, cuda, cuda:1 ...; tensorrt wants cuda.')
    precision: str = _parameter(
        AUTO, 'Number format of the network. auto: what is fastest here.', legal=(AUTO, *PRECISIONS)
    )
    engine_path: str = _parameter(
        '', 'Graph or engine that `hybrid_seg export` or `build-engine` wrote, with its own variant and token budget. '
        'Empty: backends other than pytorch make theirs, once, and keep them in `~/.cache`.',
    )
    operating_points: str = _parameter(
        '', 'Table that target_latency_ms and target_fps choose from: a file that `hybrid_seg choose-points` wrote. '
        "Empty: the model's own, NAME.points.yaml beside its YAML file.",
    )
    num_threads: int = _parameter(0, 'CPU threads of the network. 0: one per core.', low_high=(0, 256))
    cameras: Sequence[str] = _parameter(
        [''], 'Cameras that share the model, each with outputs below `~/NAME`: NAME for the topic NAME/image, or '
        'NAME:=TOPIC. None: one camera on the topic `image`, with outputs below `~`.', problem=cameras_problem,
    )
    schedule: str = _parameter(
        'turns', 'How several cameras share the model. turns: one after the other, each with its newest frame; batch: '
        'all at once.', legal=SCHEDULES,
    )
    batch_wait_ms: float = _parameter(
        10.0, 'How long the first frame of a batch waits for those of the other cameras; never for one that has been '
        'silent for image_timeout_s.', low_high=(0.0, 1000.0),
    )
    image_transport: str = _parameter(
        'raw', 'How images come. raw: sensor_msgs/Image on `image`; compressed: sensor_msgs/CompressedImage (JPEG, '
        'PNG) on `image`/compressed.', legal=IMAGE_TRANSPORTS,
    )
    image_reliability: str = _parameter(
        'auto', 'QoS asked of the image topic. reliable: lost pieces of large images are sent again, by a camera that '
        'offers it; best_effort: receives from any; auto: reliable where every publisher offers it.',
        legal=RELIABILITIES,
    )
    mask_size: str = _parameter(
        'network', 'Size of mask, confidence and pictures. network: of the image inside the network, a mask small '
        'enough for the default shared memory of DDS; image: of the camera image.', legal=OUTPUT_SIZES[::-1],
    )
    image_timeout_s: float = _parameter(
        1.0, 'Diagnostics turn WARN after this many seconds without an image, ERROR after five times as many.',
        low_high=(0.1, 3600.0),
    )
    expected_fps: float = _parameter(
        0.0, 'Rate at which each camera publishes: diagnostics warn if less than 80 % of it arrives. 0: judged by the '
        'rate of camera_info, where there is one.', low_high=(0.0, 10000.0),
    )
    exit_after_failures: int = _parameter(
        0, 'End the process, with status 1, after so many images in a row that could not be segmented: for a '
        'supervisor that starts it anew. 0: never.', low_high=(0, 1000000),
    )  # fmt: skip


@dataclass(frozen=True)
class StartSettings:
    """The parameters that are read once, at start."""

    executor: str = _parameter(
        'single', 'Executor of rclpy. single: that of every distribution; events: less processor time per image, '
        'experimental, from Jazzy on.', legal=EXECUTORS,
    )  # fmt: skip
    autostart: bool = _parameter(
        True, 'Configure and activate at start. false: wait for a lifecycle manager.'
    )  # fmt: skip


@dataclass(frozen=True)
class LiveSettings:
    """The parameters that may change between two frames, and what they ask of the pipeline."""

    variant: str = _parameter(
        '', f'Which tokens merge and which leave early: {", ".join(PAPER_VARIANTS)}. Empty: the model\'s own.',
        problem=variant_problem,
    )
    keep: float = _parameter(
        -1.0, 'Tokens that stay at each pruning layer: up to 1.0 a fraction, from 2 on a count. 0: by threshold. -1: '
        "the model's own rule.", low_high=(-1.0, 65536.0), problem=keep_problem,
    )
    threshold: float = _parameter(
        0.0, "Confidence from which tokens leave early, unless `keep` is above 0. 0: the model's own.",
        low_high=(0.0, 1.0),
    )
    merge_by: str = _parameter(
        'policy', 'Who chooses which windows merge. policy: the policy network, for each frame; previous: the answer '
        'to the frame before, where it can be trusted; auto: that, while frames come faster than 3 a second.',
        legal=MERGE_BY,
    )
    look_every: int = _parameter(
        LOOK_EVERY, 'Frames within which each merged part of the image is seen in single tokens again, where the '
        'frame before chooses.', low_high=(2, 1000),
    )
    target_latency_ms: float = _parameter(
        0.0, 'Latency budget: from the receipt of an image to its mask. Above 0, variant, keep and threshold are left '
        'aside, and the most accurate operating point that keeps p95 inside is chosen.', low_high=(0.0, 60000.0),
    )
    target_fps: float = _parameter(
        0.0, 'Budget as a rate: masks per second of each camera. 0: none. With target_latency_ms, both are kept.',
        low_high=(0.0, 1000.0),
    )
    overlay_alpha: float = _parameter(0.5, 'Share of the class colours in the overlay.', low_high=(0.0, 1.0))
    overlay_legend: bool = _parameter(
        False, 'Write names and colours of the classes in view into the corner of the overlay.'
    )
    enabled: bool = _parameter(True, 'Segment images. false: stay active, but leave images alone.')  # fmt: skip

    @property
    def target(self) -> LatencyTarget:
        """The latency budget; false where there is none."""
        return LatencyTarget(float(self.target_latency_ms), float(self.target_fps))

    def wanted(self, spec: ModelSpec) -> Wanted:
        """Return what a model is to run. Raises ModelSpecError if it cannot."""
        return Wanted(*self.operating_point(spec), self.target)

    def operating_point(self, spec: ModelSpec) -> tuple[Variant, TokenBudget]:
        """Return variant and token budget for a model. Raises ModelSpecError if it cannot run the variant."""
        variant = Variant.parse(self.variant) if self.variant else spec.variant
        spec.check_variant(variant)
        if self.keep > 0:
            return variant, choose_budget(spec.budget, keep=float(self.keep) if self.keep <= 1 else round(self.keep))
        if self.threshold > 0:
            return variant, choose_budget(spec.budget, threshold=self.threshold)
        return variant, dataclasses.replace(spec.budget, keep=None) if self.keep == 0 else spec.budget


DECLARATIONS = tuple(
    Declaration(name=each.name, when=when, **each.metadata)
    for settings, when in ((NodeConfig, CONFIGURE), (StartSettings, START), (LiveSettings, LIVE))
    for each in dataclasses.fields(settings)
)
NAMES = tuple(declaration.name for declaration in DECLARATIONS)


def refuse_unknown_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is no parameter of the node, with the one that was probably meant."""
    unknown = [name for name in names if name not in (*NAMES, 'use_sim_time') and not name.startswith('qos_overrides.')]
    if unknown:
        raise ValueError(f'the node has no parameter {", ".join(map(with_meant, unknown))}; it has {", ".join(NAMES)}')


def with_meant(name: str) -> str:
    """Return an unknown name, with the parameter that was probably meant."""
    meant = difflib.get_close_matches(name, NAMES, 1)
    return f'{name} (did you mean {meant[0]}?)' if meant else name
