"""Evaluate a bag: the frames of its camera at several operating points, offline or through the real node.

Offline every frame is segmented in this process, without DDS; live the bag is played to the node, which drops what it
has no time for. Both are then scored in the same way.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from hybrid_seg_ros.evaluation.film.best_frames import BestFrames
from hybrid_seg_ros.evaluation.film.frame import FrameResult, VideoFrame
from hybrid_seg_ros.evaluation.film.report import FilmReport, RowReport
from hybrid_seg_ros.evaluation.film.scoring import Row, row_name, score_film
from hybrid_seg_ros.inference.backends import BackendChoice
from hybrid_seg_ros.inference.film import Film
from hybrid_seg_ros.inference.pipeline import check_operating_point, choose_budget, load_pipeline
from hybrid_seg_ros.inference.pipeline_options import say_what_has_no_effect
from hybrid_seg_ros.inference.points_table import name_point
from hybrid_seg_ros.model_path import resolve_model_path
from hybrid_seg_ros.model_spec import Keep, ModelSpec, Variant, Windows
from hybrid_seg_ros.ros.bags.bag_content import BagError
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.drive import BagFrames, Drive
from hybrid_seg_ros.ros.bags.ground_truth import FolderTruth, UnreadableLabelsError
from hybrid_seg_ros.ros.parameters import refuse_unknown_names

_ROW_PARAMETERS = {
    'model_path': '--model', 'variant': '--variants', 'backend': '--backends', 'precision': '--backends NAME:DTYPE',
    'device': '--device', 'keep': '--keep', 'threshold': '--threshold', 'image_transport': 'that of the bag',
    **dict.fromkeys(('target_latency_ms', 'target_fps', 'operating_points', 'engine_path'), 'one fixed point a row'),
    'cameras': '--topic',
}  # fmt: skip
"""Parameters of the node that say what a row is of, and what says it here."""

_MASK_SIZE = 'network'
"""Of live masks, unless a parameter says otherwise: that of a node that is told nothing."""


@dataclass(frozen=True)
class EvaluateBagOptions:
    """What to evaluate, and how; what is None is the model's own, or the only one of the bag.

    `merge_by` names who chooses the windows, a row for each, as of a `Film`; only every so manyth frame is taken
    (`every`). `labels` is a folder of ground truth by stamp, `void` an id in the ground truth that means "no
    class"; without `with_labels` there is none, whatever the bag holds. `live` plays the bag to the node at `rate`,
    with further `parameters` of the node. `with_dense` compares with the dense model even where there is ground
    truth; without any, that is done anyway.
    """

    bag: Path
    model: Optional[Path] = None
    variants: tuple[Variant, ...] = ()
    choices: tuple[BackendChoice, ...] = (BackendChoice('pytorch', 'float32'),)
    device: str = 'cpu'
    keep: Optional[Sequence[Keep]] = None
    threshold: Optional[float] = None
    merged_windows: Union[Keep, Windows, None] = None
    merge_by: tuple[str, ...] = ('policy',)
    every: int = 1
    topic: Optional[str] = None
    label_topic: Optional[str] = None
    labels: Optional[Path] = None
    void: Optional[int] = None
    limit: Optional[int] = None
    live: bool = False
    rate: float = 1.0
    parameters: dict[str, str] = field(default_factory=dict)
    with_dense: bool = False
    with_labels: bool = True
    cache_dir: Optional[Path] = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f'--limit: expected at least 1 frame, got {self.limit}')
        if self.every < 1:
            raise ValueError(f'--every: expected at least 1, got {self.every}')
        for name in self.merge_by:
            Film(name)
        if self.live and (self.every > 1 or self.merge_by != ('policy',) or self.merged_windows is not None):
            raise ValueError('--live: expected it without --every, --merge-by and --merged-windows: the bag plays '
                             'as it is, and `--param merge_by:=previous` tells the node')  # fmt: skip
        if self.rate <= 0:
            raise ValueError(f'--rate: expected more than 0, got {self.rate}')
        if self.labels is not None and self.label_topic is not None:
            raise ValueError('give ground truth from a topic (--label-topic) or from a folder (--labels), not both')
        if not self.live and (self.rate != 1.0 or self.parameters):
            raise ValueError('--rate and --param are for --live: offline every frame is segmented in this process')
        keeps = ' '.join(map(str, self.keep or ()))
        if self.live and (keeps == '1' or ' ' in keeps):
            raise ValueError('--keep with --live: the node takes one value for all pruning layers, a fraction or a '
                             f'count from 2 on; got {keeps}')  # fmt: skip
        if not self.with_labels and (self.labels is not None or self.label_topic is not None):
            raise ValueError('--no-labels: expected no --labels and no --label-topic beside it')
        for name in _ROW_PARAMETERS.keys() & self.parameters.keys():
            raise ValueError(f'--param {name}: expected {_ROW_PARAMETERS[name]} instead, by which rows are told apart')


@dataclass(frozen=True)
class _Point:
    """A variant on a backend; `shown` is false for one that is only there to compare with."""

    variant: Variant
    choice: BackendChoice
    shown: bool = True
    merge_by: str = 'policy'


def evaluate_bag(options: EvaluateBagOptions) -> tuple[FilmReport, BestFrames]:
    """Evaluate a bag. Raises BagError, ValueError, or in live mode NodeError with the end of the node's log."""
    model = resolve_model_path(options.model or '')
    spec = ModelSpec.load(model)
    points = [
        _Point(variant, choice, merge_by=merge_by)
        for choice in options.choices
        for variant in options.variants or (spec.variant,)
        for merge_by in (options.merge_by if variant.merges else ('policy',))
    ]
    budget = choose_budget(spec.budget, options.keep, options.threshold, options.merged_windows)
    say_what_has_no_effect(options, [point.variant for point in points])
    for point in points:
        check_operating_point(spec, point.variant, budget)
    with BagReader(options.bag) as bag, ExitStack() as stack:
        drive = _open_drive(options, bag, len(spec.classes))
        rows = _rows(options, points, drive, model, stack)
        shown = [row for row in rows if row.shown]
        focus = next((index for index, row in enumerate(shown) if not row.is_reference), 0)
        best_frames = BestFrames(spec.classes, [row_name(rows, row) for row in shown], focus)
        frames = BagFrames(drive, options.every)
        result = score_film(frames, rows, spec, best_frames)
        if not result.frames:
            problem = next(iter(frames.unreadable), 'none could be read again')
            raise BagError(f'bag {options.bag}: no frame of {drive.camera} can be decoded: {problem}')
        if drive.truth is not None and not result.truth_frames:
            problem = next(iter(frames.unreadable_truth), 'the frames that have some cannot be decoded themselves')
            raise ValueError(f'{drive.truth.name}: no ground truth can be decoded: {problem}; --no-labels does without')
        report = FilmReport(
            video=str(options.bag), mode='live' if options.live else 'offline', model=spec.name,
            pruning=', '.join(dict.fromkeys(name_point(point.variant, budget) for point in points)),
            **{**vars(result), 'rows': _with_unreadable(result.rows, len(frames.unreadable))},
            truth=None if drive.truth is None else drive.truth.name, damage=bag.damage,
            unreadable=tuple(frames.unreadable), unreadable_truth=tuple(frames.unreadable_truth),
        )  # fmt: skip
    return report, best_frames


def _with_unreadable(rows: Sequence[RowReport], count: int) -> list[RowReport]:
    """Say in the live figures that so many frames had no picture, and were not dropped for want of time."""
    return [
        row if row.live is None else dataclasses.replace(row, live=dataclasses.replace(row.live, unreadable=count))
        for row in rows
    ]


def _open_drive(options: EvaluateBagOptions, bag: BagReader, classes: int) -> Drive:
    """Find the frames and their ground truth. Raises ValueError if there is some that cannot be told apart by stamp."""
    folder = None if options.labels is None else FolderTruth(options.labels, classes, options.void)
    drive = Drive(bag, options.topic, options.label_topic, options.limit, folder, options.void, classes,
                  with_labels=options.with_labels)  # fmt: skip
    truth, stamps_ns = drive.truth, drive.stamps_ns
    if truth is not None and truth.name == drive.camera.name:
        raise ValueError(f'{truth.name}: expected images on one topic and ground truth on another, got both on one')
    if drive.repeated_stamp() is not None and (options.live or truth is not None):
        raise ValueError(
            f'{drive.camera.name}: expected a header stamp of its own for each frame, by which masks and ground truth '
            f'are found; {len(stamps_ns)} frames have {len(set(stamps_ns))}, the first that repeats is '
            f'{drive.repeated_stamp()} ns' + ('' if options.live else '; --no-labels does without ground truth')
        )
    if truth is not None and not _has_truth(drive):
        raise ValueError(
            f'{truth.name}: expected ground truth with the stamps of {drive.camera.name}, from {stamps_ns[0]} to '
            f'{stamps_ns[-1]} ns; its own go from {truth.stamps_ns[0]} to {truth.stamps_ns[-1]}; --no-labels does '
            'without'
        )
    return drive


def _has_truth(drive: Drive) -> bool:
    """Say whether any frame has ground truth, be it that it cannot be decoded."""
    for stamp_ns in drive.stamps_ns:
        try:
            if drive.truth.labels_at(stamp_ns) is not None:
                return True
        except UnreadableLabelsError:
            return True
    return False


def _rows(
    options: EvaluateBagOptions, points: Sequence[_Point], drive: Drive, model: Path, stack: ExitStack
) -> list[Row]:
    """Open the rows to be shown and, if the dense model is needed to compare with and not among them, that one."""
    hidden = _Point(Variant(), points[0].choice, shown=False)
    compares = options.with_dense or drive.truth is None
    if options.live:
        rows = _live_rows(options, points, drive, model, stack)
        size = options.parameters.get('mask_size', _MASK_SIZE)  # as the node's masks, so that only tokens differ
        return rows + ([_offline_row(options, hidden, model, stack, size)] if compares else [])
    if compares and all(point.variant != hidden.variant for point in points):
        points = [*points, hidden]
    return [_offline_row(options, point, model, stack) for point in points]


def _offline_row(
    options: EvaluateBagOptions, point: _Point, model: Path, stack: ExitStack, output_size: str = 'image'
) -> Row:
    pipeline = load_pipeline(
        model, point.choice.name, options.device, point.choice.dtype, str(point.variant), options.keep,
        options.threshold, output_size, cache_dir=options.cache_dir,
    )  # fmt: skip
    stack.callback(pipeline.close)
    if options.merged_windows is not None:
        pipeline.set_operating_point(budget=choose_budget(pipeline.budget, merged_windows=options.merged_windows))
    pipeline.warm_up()
    film = Film(point.merge_by)

    def source(frame: VideoFrame) -> FrameResult:
        return FrameResult.of(pipeline(frame.image, film, frame.time_s))

    return Row(
        point.variant, point.choice.name, point.choice.dtype, pipeline.device_name, source, shown=point.shown,
        merged_by=point.merge_by if point.variant.merges else '',
    )  # fmt: skip


def _live_rows(
    options: EvaluateBagOptions, points: Sequence[_Point], drive: Drive, model: Path, stack: ExitStack
) -> list[Row]:
    """Play the bag once for each point, to a node of its own."""
    from hybrid_seg_ros.ros.play.live_answers import LiveAnswers

    refuse_unknown_names(options.parameters)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='hybrid_seg_')))
    rows = []
    for index, point in enumerate(points):
        answers = LiveAnswers(drive, _node_parameters(options, point, model), options.rate, folder / str(index))
        rows.append(Row(
            point.variant, point.choice.name, point.choice.dtype, answers.device, answers, answers.figures
        ))  # fmt: skip
    return rows


def _node_parameters(options: EvaluateBagOptions, point: _Point, model: Path) -> Mapping[str, str]:
    parameters = {
        'model_path': str(model.resolve()), 'variant': str(point.variant), 'backend': point.choice.name,
        'precision': point.choice.dtype, 'device': options.device, 'mask_size': _MASK_SIZE,
    }  # fmt: skip
    if options.keep is not None:
        parameters['keep'] = str(options.keep[0])
    if options.threshold is not None:
        parameters.update(keep='0.0', threshold=str(options.threshold))
    return {**parameters, **options.parameters}
