"""The page on a video: what it is, the table, the plots, the worst and the best frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional

from hybrid_seg_ros.evaluation.html_page import Gallery, Page, Part, Picture, Section, Table
from hybrid_seg_ros.evaluation.sequence.album import FrameAlbum, quality_of
from hybrid_seg_ros.evaluation.sequence.frame import FrameRecord
from hybrid_seg_ros.evaluation.sequence.plots import (
    plot_figure,
    plot_gflops,
    plot_iou_per_class,
    plot_times,
    plot_tokens,
)
from hybrid_seg_ros.evaluation.sequence.report import RowReport, SequenceReport

_MOST_UNREADABLE = 5
_PICTURE_PX = 270
_MOST_BARS = 240
_FLICKER = (
    'Flicker: pixels whose class is not the one that their place had in the frame before, found again by optical flow, '
    'in per cent of those found.'
)


def sequence_page(report: SequenceReport, album: FrameAlbum) -> Page:
    """Return the page on a video, with the pictures that `album` kept."""
    sections = [
        Section('Figures', list(_figures(report))),
        Section('Time', list(_times(report))),
        Section('Tokens and GFLOPs', [
            Picture(plot_tokens(report), 'Thin: tokens that enter the encoder; thick: those that reach its last '
                    'layers.', 'tokens over time'),
            Picture(plot_gflops(report), 'Everything counted: policy network and auxiliary heads too. A multiply-add '
                    'is 1.', 'GFLOPs over time'),
        ]),
        *_accuracy(report),
        *_frames(album),
    ]  # fmt: skip
    return Page(f'{report.video}: {report.model}', sections, list(_facts(report)), list(_warnings(report)))


def _facts(report: SequenceReport) -> Iterator[tuple[str, str]]:
    yield 'bag', report.video
    yield 'frames', f'{report.frames} in {report.duration_s:.1f} s'
    yield 'mode', {
        'offline': 'offline: every frame, one after the other',
        'live': 'live: played to the running node over DDS; the newest frame wins',
    }[report.mode]
    yield 'ground truth', report.truth or 'none'
    yield 'model', report.model
    yield 'pruning', report.pruning
    yield 'device', ', '.join(dict.fromkeys(f'{row.device} ({row.backend})' for row in report.rows))


def _warnings(report: SequenceReport) -> Iterator[str]:
    if report.damage:
        yield f'The bag is damaged: {report.damage}. All figures are of what could be read.'
    if report.unreadable:
        shown = '; '.join(report.unreadable[:_MOST_UNREADABLE])
        more = len(report.unreadable) - _MOST_UNREADABLE
        yield f'{len(report.unreadable)} pictures could not be decoded and are left out: {shown}' + (
            f'; and {more} more' if more > 0 else ''
        )


def _figures(report: SequenceReport) -> Iterator[Part]:
    rows = report.rows
    has_agreement = any(row.agreement is not None for row in rows)
    columns = ['', 'backend', *(['mIoU %', 'pixel acc. %'] if report.has_truth else []),
               *(['as dense %'] if has_agreement else []), 'flicker %', 'tokens', 'GFLOPs',
               'p50 ms', 'p95 ms',
               *([] if report.mode == 'live' else ['FPS'])]  # fmt: skip
    table = []
    for row in rows:
        cells = [row.variant, f'{row.backend} {row.dtype}']
        cells += [_number(row.miou), _number(row.pixel_accuracy)] if report.has_truth else []
        cells += [_number(row.agreement)] if has_agreement else []
        tokens = ' → '.join(f'{count:.0f}' for count in row.tokens_mean.values())
        fps = None if not row.p50_ms else 1e3 / row.p50_ms
        cells += [_number(row.flicker, 2), tokens, _number(row.gflops_mean, 2), _number(row.p50_ms),
                  _number(row.p95_ms), *([] if report.mode == 'live' else [_number(fps)])]  # fmt: skip
        table.append(cells)
    notes = [_FLICKER]
    if has_agreement:
        names = ' and '.join(dict.fromkeys(row.reference for row in rows if row.reference))
        notes.append(f'As dense: pixels that have the class that the dense model ({names}) gives them.')
    if report.truth_flicker is not None:
        notes.append(f'The ground truth itself: {report.truth_flicker:.2f} %.')
    if report.has_truth:
        labelled = max(row.labelled_frames for row in rows)
        notes.append(f'mIoU over all pixels of the {labelled} frames with ground truth that were answered.')
    yield Table(columns, table, ' '.join(notes))
    if report.mode == 'live':
        yield _live_table(rows)
    if report.has_truth:
        yield from _classes(rows, report)


def _classes(rows: Sequence[RowReport], report: SequenceReport) -> Iterator[Part]:
    """Yield the IoU of each class: as bars or, where these would be too many, as a table."""
    labelled = [row for row in rows if row.iou_per_class]
    names = list(labelled[0].iou_per_class)
    if len(names) * len(labelled) <= _MOST_BARS:
        yield Picture(plot_iou_per_class(report), alt='IoU of each class')
    else:
        cells = [[name, *(_number(row.iou_per_class[name]) for row in labelled)] for name in names]
        yield Table(['IoU %', *(row.name for row in labelled)], cells)


def _live_table(rows: Sequence[RowReport]) -> Table:
    table = [
        [row.name, str(row.live.sent), _number(row.live.sent_hz), str(row.live.answered), str(row.live.dropped),
         _number(row.live.answers_hz), _number(row.live.busy_ms),
         _number(100 * row.live.answered / max(1, row.live.sent), 0), _number(row.live.expected, 0)]
        for row in rows if row.live is not None
    ]  # fmt: skip
    columns = ['', 'frames', 'at Hz', 'answered', 'dropped', 'masks/s', 'ms of work', 'answered %', 'time for %']
    return Table(columns, table, (
        '"ms of work" is what the node spends on a frame by its own diagnostics (p50); "time for" is the share of the '
        'frames that this leaves time for. Where fewer were answered, frames got lost on the way, or the machine was '
        'busy with something else.'
    ))  # fmt: skip


def _times(report: SequenceReport) -> Iterator[Part]:
    if any(row.median_ms for row in report.rows):
        steps = list(next(row.median_ms for row in report.rows if row.median_ms))
        rows = [[row.name, *(_number(row.median_ms.get(step)) for step in steps)] for row in report.rows]
        yield Table(['median ms', *steps], rows, (
            'Rows take turns on each frame, so that whatever else the machine does slows all alike; with several '
            'backends in one process they also disturb each other, and `hybrid_seg benchmark` is fairer.'
        ))  # fmt: skip
    yield Picture(plot_times(report), alt='share of frames within a time')


def _accuracy(report: SequenceReport) -> Iterator[Section]:
    plots = (
        ('miou', 'mIoU of the frame, %', 'mIoU over the classes of each frame alone'),
        ('agreement', 'pixels as in dense, %', 'Pixels that have the class that the dense model gives them'),
        ('flicker', 'flicker, %', _FLICKER),
    )
    pictures = [Picture(data, caption, caption) for name, label, caption in plots
                if (data := plot_figure(report, name, label)) is not None]  # fmt: skip
    if pictures:
        yield Section('Over time', pictures)


def _frames(album: FrameAlbum) -> Iterator[Section]:
    legend = [album.legend()] if album.best else []
    for title, pages in (('Worst frames', album.worst), ('Best frames', album.best)):
        parts: list[Part] = legend
        for page in pages:
            parts = [*parts, _describe(page.record, album.judge), Gallery(page.pictures, _PICTURE_PX)]
        if pages:
            yield Section(title, parts)
            legend = []


def _describe(record: FrameRecord, row: str) -> str:
    name, quality = quality_of(record)
    words = [f'{name} {quality:.1f} %'] if name else []
    words += [] if record.gflops is None else [f'{record.gflops:.2f} GFLOPs']
    return f'Frame {record.index} at {record.time_s:.2f} s, {row}: {", ".join(words)}'


def _number(value: Optional[float], digits: int = 1) -> str:
    return '' if value is None else f'{value:.{digits}f}'
