"""The figures of a video at several operating points, as JSON and CSV."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from hybrid_seg_ros.evaluation.film.frame import FrameRecord
from hybrid_seg_ros.evaluation.pages.tables import format_csv

_HEADLINE = ('miou', 'pixel_accuracy', 'iou_per_class', 'tokens_mean', 'gflops_mean')
"""Figures of the first row that stand at the top of the JSON as well, under the names that `evaluate` gives them."""


@dataclass(frozen=True)
class LiveCounts:
    """What became of the frames that were played to a node.

    `sent_hz` is the rate at which they were published, measured, `answers_hz` that of the masks. `busy_ms` is how long
    the node works on a frame by its own diagnostics (p50), so that it can answer at most 1000 / `busy_ms` in a second;
    `expected` is the share of the frames, in per cent, that this leaves time for. None where that is not known.
    `unreadable` frames were sent, but cannot be decoded by anybody.
    """

    sent: int
    answered: int
    sent_hz: Optional[float]
    answers_hz: float
    busy_ms: Optional[float]
    unreadable: int = 0

    @property
    def dropped(self) -> int:
        """Frames that got no answer, but could have been decoded."""
        return self.sent - self.answered - self.unreadable

    @property
    def answered_share(self) -> float:
        """Per cent of the frames that can be decoded."""
        return 100.0 * self.answered / max(1, self.sent - self.unreadable)

    @property
    def expected(self) -> Optional[float]:
        """Per cent of the frames that the node has time for."""
        if not self.busy_ms or not self.sent_hz:
            return None
        return 100.0 * min(1.0, 1e3 / (self.busy_ms * self.sent_hz))

    def __str__(self) -> str:
        rate = '' if self.sent_hz is None else f' at {self.sent_hz:.1f} Hz'
        text = f'{self.sent} frames{rate}: {self.answered} answered ({self.answers_hz:.1f} FPS), {self.dropped} dropped'
        if self.unreadable:
            text += f', {self.unreadable} not to be decoded'
        if self.expected is None:
            return f'{text}; whether there was time for more is not known'
        return (
            f'{text}; {self.busy_ms:.1f} ms of work a frame leaves time for {self.expected:.0f} %, '
            f'{self.answered_share:.0f} % were answered'
        )


@dataclass(frozen=True)
class RowReport:
    """The figures of one operating point on one backend; shares in per cent, None where there is nothing to say.

    Frames without an answer are left out of all of them. `agreement` and `agreement_miou` take the dense model's labels
    for the truth, of the row that `reference` names; `flicker` is the mean over `flicker_pairs`
    of neighbouring frames that were both answered (see flicker.py). `p50_ms` and `p95_ms` are of `time_ms` of the
    frames, `median_ms` of the pipeline's steps.
    """

    name: str
    variant: str
    backend: str
    dtype: str
    device: str
    frames: int
    labelled_frames: int
    miou: Optional[float]
    pixel_accuracy: Optional[float]
    iou_per_class: Mapping[str, Optional[float]]
    agreement: Optional[float]
    agreement_miou: Optional[float]
    flicker: Optional[float]
    tokens_mean: Mapping[str, float]
    gflops_mean: Optional[float]
    p50_ms: Optional[float]
    p95_ms: Optional[float]
    reference: Optional[str] = None
    flicker_pairs: int = 0
    median_ms: Mapping[str, float] = field(default_factory=dict)
    live: Optional[LiveCounts] = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON, what follows from the rest included."""
        row = dataclasses.asdict(self)
        if self.live is not None:
            row['live'].update(dropped=self.live.dropped, expected=self.live.expected)
        return row


@dataclass(frozen=True)
class FilmResult:
    """What came of a video: its rows, and the records of their frames, in the order of `rows`.

    `frames` were read, `truth_frames` of them have ground truth; `truth_flicker` is what the ground truth itself
    flickers, in per cent.
    """

    rows: Sequence[RowReport]
    records: Sequence[Sequence[FrameRecord]]
    frames: int
    duration_s: float
    truth_frames: int
    truth_flicker: Optional[float]


@dataclass(frozen=True)
class FilmReport(FilmResult):
    """A video at several operating points, and what there is to say of the video.

    `truth` says where ground truth is from, `damage` where the video's file is damaged, `unreadable` of the frames that
    could not be decoded why, `unreadable_truth` the same of ground truth.
    """

    video: str
    mode: str
    model: str
    pruning: str
    truth: Optional[str] = None
    damage: Optional[str] = None
    unreadable: Sequence[str] = ()
    unreadable_truth: Sequence[str] = ()

    @property
    def has_truth(self) -> bool:
        """Whether any frame has ground truth."""
        return any(row.miou is not None for row in self.rows)

    def to_json(self) -> str:
        """Return everything but the single frames; the first row's headline figures stand at the top as well."""
        rows = [row.as_dict() for row in self.rows]
        own = {name: value for name, value in vars(self).items() if name not in ('rows', 'records')}
        content = {**own, **{name: rows[0][name] for name in _HEADLINE}, 'rows': rows}
        return json.dumps(content, indent=2, allow_nan=False) + '\n'

    def to_csv(self) -> str:
        """Return one line per frame and row; cells without a figure are empty."""
        return format_csv([
            {'variant': row.variant, 'backend': row.backend, 'dtype': row.dtype,
             **{name: _cell(value) for name, value in vars(record).items() if name != 'tokens'},
             'time_s': f'{record.time_s:.3f}', 'tokens': record.tokens}
            for row, records in zip(self.rows, self.records) for record in records
        ])  # fmt: skip


def _cell(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else f'{value:.6g}' if isinstance(value, float) else value
