"""BestFrames: keeps pictures of the best and the worst frames of a video, while it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np

from hybrid_seg_ros.evaluation.film.frame import FrameRecord, FrameResult, VideoFrame
from hybrid_seg_ros.evaluation.pages.html_page import Picture
from hybrid_seg_ros.evaluation.pages.tables import format_tokens
from hybrid_seg_ros.label_space import UNLABELLED, LabelSpace
from hybrid_seg_ros.visualization import class_legend, draw_overlay, draw_token_map, fit_image

WIDTH_PX = 400
"""Width of a picture."""
_RIGHT, _WRONG = (205, 208, 214), (200, 30, 40)
_APART_S = 1.0
"""Of two frames closer than this only one is kept: neighbours look alike."""
_LEGEND_ROWS, _LEGEND_COLUMNS, _LEGEND_PX = 4, 7, 160


@dataclass(frozen=True)
class KeptFrame:
    """A frame: its figures in the row that frames are judged by, and its pictures."""

    record: FrameRecord
    pictures: Sequence[Picture]


def quality_of(record: FrameRecord) -> tuple[str, float]:
    """Return by what a frame is judged, and how good it is by that: mIoU, or agreement with dense, or steadiness.

    Without any of these, as in a video of one frame, all are as good.
    """
    if record.miou is not None:
        return 'mIoU', record.miou
    if record.agreement is not None:
        return 'agreement with dense', record.agreement
    return ('', 0.0) if record.flicker is None else ('pixels that do not flicker', 100.0 - record.flicker)


class BestFrames:
    """Keeps the `count` best and worst frames, judged by the row `focus` (see `quality_of`)."""

    def __init__(self, classes: LabelSpace, names: Sequence[str], focus: int = 0, count: int = 3) -> None:
        """`names` are those of the rows, for the captions."""
        self._classes, self._names, self._focus = classes, names, focus
        self._best, self._worst = _Ranking(count), _Ranking(count)
        self._seen = np.zeros(256, bool)

    def look(
        self, results: Sequence[Optional[FrameResult]], records: Sequence[FrameRecord], frame: VideoFrame,
        dense: Sequence[Optional[np.ndarray]],
    ) -> None:  # fmt: skip
        """Look at a frame and what the rows made of it; pictures are drawn only if it is to be kept.

        `dense` are the dense model's labels that each row is compared with, where it is.
        """
        record = records[self._focus]
        if not record.answered:
            return
        _, quality = quality_of(record)
        candidates = ((self._best, quality), (self._worst, -quality))
        wanted = [(ranking, merit) for ranking, merit in candidates if ranking.would_take(merit, record.time_s)]
        if wanted:
            kept = KeptFrame(record, self._draw(frame, results, dense[self._focus]))
            for ranking, merit in wanted:
                ranking.take(merit, kept)

    @property
    def judge(self) -> str:
        """Name of the row that frames are judged by."""
        return self._names[self._focus]

    @property
    def best(self) -> list[KeptFrame]:
        """The best frames, best first."""
        return self._best.frames

    @property
    def worst(self) -> list[KeptFrame]:
        """The worst frames, worst first; those that are among the best as well, in a short video, are left out."""
        best = {kept.record.index for kept in self._best.frames}
        return [kept for kept in self._worst.frames if kept.record.index not in best]

    def legend(self) -> Picture:
        """Name the colours of the classes that occur in the pictures, in columns."""
        present = [index for index in range(len(self._classes)) if self._seen[index]]
        rows = max(_LEGEND_ROWS, -(-len(present) // _LEGEND_COLUMNS))
        columns = [present[start : start + rows] for start in range(0, len(present), rows)]
        drawn = [class_legend(_only(self._classes, column), _LEGEND_PX) for column in columns]
        height = max(column.shape[0] for column in drawn)
        beside = [
            cv2.copyMakeBorder(each, 0, height - each.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
            for each in drawn
        ]
        return Picture.of_rgb(np.hstack(beside), alt='colours of the classes')

    def _draw(
        self, frame: VideoFrame, results: Sequence[Optional[FrameResult]], dense: Optional[np.ndarray]
    ) -> list[Picture]:
        height, width = frame.image.shape[:2]
        size_hw = (round(height * WIDTH_PX / width), WIDTH_PX)
        image = fit_image(frame.image, size_hw)
        pictures = [Picture.of_rgb(image, 'image')]
        target, name = (frame.truth, 'ground truth') if frame.truth is not None else (dense, 'dense')
        if target is not None:
            pictures.append(Picture.of_rgb(self._overlay(image, target), name))
        for result, row in zip(results, self._names):
            if result is not None:
                pictures.append(Picture.of_rgb(self._overlay(image, result.labels), row))
        judged = results[self._focus]
        if target is not None:
            pictures.append(Picture.of_rgb(_errors(image, judged.labels, target), f'{self.judge}: not as in {name}'))
        if judged.report is not None:
            caption = f'{self.judge}: tokens {format_tokens(judged.tokens)}'
            pictures.append(Picture.of_rgb(draw_token_map(frame.image, judged.report, size_hw), caption))
        return pictures

    def _overlay(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        labels = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        self._seen[np.unique(labels)] = True
        return draw_overlay(image, labels, self._classes)


class _Ranking:
    """The frames of greatest merit, none within _APART_S of another."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._entries: list[tuple[float, KeptFrame]] = []

    @property
    def frames(self) -> list[KeptFrame]:
        """The frames, greatest merit first."""
        return [frame for _, frame in self._entries]

    def would_take(self, merit: float, time_s: float) -> bool:
        """Say whether a frame of this merit belongs here."""
        near = [other for other, frame in self._entries if abs(frame.record.time_s - time_s) < _APART_S]
        if near:
            return merit > max(near)
        return len(self._entries) < self._count or merit > self._entries[-1][0]

    def take(self, merit: float, frame: KeptFrame) -> None:
        """Put a frame in its place, instead of those near it or of the last."""
        apart = [entry for entry in self._entries
                 if abs(entry[1].record.time_s - frame.record.time_s) >= _APART_S]  # fmt: skip
        self._entries = sorted([*apart, (merit, frame)], key=lambda entry: -entry[0])[: self._count]


def _only(classes: LabelSpace, indices: Sequence[int]) -> LabelSpace:
    return LabelSpace(tuple(classes.names[i] for i in indices), tuple(classes.palette[i] for i in indices))


def _errors(image: np.ndarray, labels: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Draw where labels are not those of the target: red on a pale image."""
    size = image.shape[1::-1]
    labels, target = (cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in (labels, target))
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    picture = cv2.addWeighted(grey, 0.5, np.full_like(grey, _RIGHT), 0.5, 0.0)
    picture[(labels != target) & (target != UNLABELLED)] = _WRONG
    return picture
