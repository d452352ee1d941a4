"""The page on a video: what it is, the table, the figures, the worst and the best frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from hybrid_seg_ros.evaluation.film.best_frames import BestFrames, quality_of
from hybrid_seg_ros.evaluation.film.figures import plot_iou_per_class, plot_over_time, plot_times
from hybrid_seg_ros.evaluation.film.frame import FrameRecord
from hybrid_seg_ros.evaluation.film.report import FilmReport, RowReport
from hybrid_seg_ros.evaluation.pages.html_page import Gallery, Page, Part, Picture, Section, Table
from hybrid_seg_ros.evaluation.pages.tables import fill_columns, format_number, format_tokens

_MOST_UNREADABLE = 5
_PICTURE_PX = 210
_FEWEST_FRAMES = 3
"""Of a plot over time."""
_MOST_BARS = 240
_FLICKER = (
    'Flicker: pixels whose class is not the one that their place had in the frame before, found again by optical flow, '
    'in per cent of those found.'
)


def film_page(report: FilmReport, best_frames: BestFrames) -> Page:
    """Return the page on a video, with its best and worst frames."""
    sections = [
        Section('Figures', list(_figures(report))),
        Section('Time', list(_times(report))),
        *(_over_time(report) if report.frames >= _FEWEST_FRAMES else ()),
        *_frames(best_frames),
    ]  # fmt: skip
    return Page(f'{report.video}: {report.model}', sections, list(_facts(report)), list(_warnings(report)))


def _facts(report: FilmReport) -> Iterator[tuple[str, str]]:
    yield 'bag', report.video
    yield 'frames', f'{report.frames} in {report.duration_s:.1f} s'
    yield 'mode', {
        'offline': 'offline: every frame, one after the other',
        'live': 'live: played to the running node over DDS; the newest frame wins',
    }[report.mode]
    yield 'ground truth', 'none' if report.truth is None else f'{report.truth}, of {report.truth_frames} frames'
    yield 'model', report.model
    yield 'operating points', report.pruning
    yield 'device', ', '.join(dict.fromkeys(f'{row.device} ({row.backend})' for row in report.rows))


def _warnings(report: FilmReport) -> Iterator[str]:
    if report.damage:
        yield f'The bag is damaged: {report.damage}. All figures are of what could be read.'
    for problems, what in (
        (report.unreadable, 'frames could not be decoded and are left out'),
        (report.unreadable_truth, 'frames have ground truth that could not be decoded, and count as without'),
    ):
        if problems:
            more = len(problems) - _MOST_UNREADABLE
            shown = '; '.join(problems[:_MOST_UNREADABLE]) + (f'; and {more} more' if more > 0 else '')
            yield f'{len(problems)} {what}: {shown}'


def _figures(report: FilmReport) -> Iterator[Part]:
    rows = report.rows
    has_agreement = any(row.agreement is not None for row in rows)
    is_live = report.mode == 'live'
    columns: dict[str, Callable[[RowReport], str]] = {
        '': lambda row: row.name.partition(', ')[0],
        'backend': lambda row: f'{row.backend} {row.dtype}',
        'frames': lambda row: str(row.frames) if is_live else '',
        'mIoU %': lambda row: format_number(row.miou),
        'pixel acc. %': lambda row: format_number(row.pixel_accuracy),
        'as dense %': lambda row: format_number(row.agreement),
        'flicker %': lambda row: format_number(row.flicker, 2),
        'tokens': lambda row: format_tokens(row.tokens_mean),
        'GFLOPs': lambda row: format_number(row.gflops_mean, 2),
        'p50 ms': lambda row: format_number(row.p50_ms),
        'p95 ms': lambda row: format_number(row.p95_ms),
        'FPS': lambda row: '' if is_live or not row.p50_ms else f'{1e3 / row.p50_ms:.1f}',
    }
    notes = [_FLICKER]
    if report.truth_flicker is not None:
        notes.append(f'The ground truth itself flickers {report.truth_flicker:.2f} % over all frames.')
    if has_agreement:
        names = ' and '.join(dict.fromkeys(row.reference for row in rows if row.reference))
        notes.append(f'As dense: pixels that have the class that the dense model ({names}) gives them.')
    if is_live:
        pairs = ', '.join(f'{row.flicker_pairs} of {row.name}' for row in rows)
        notes.append('Each row is over the frames that it answered, so that rows are of different frames; flicker is '
                     f'over neighbours that were both answered: {pairs}.')  # fmt: skip
    else:
        notes.append('FPS: 1000 / p50.')
    yield Table(*fill_columns(columns, rows), ' '.join(notes))
    if report.mode == 'live':
        yield _live_table(rows)
    if report.has_truth:
        yield from _classes(rows, report)


def _classes(rows: Sequence[RowReport], report: FilmReport) -> Iterator[Part]:
    """Yield the IoU of each class: as bars or, where these would be too many, as a table."""
    labelled = [row for row in rows if row.iou_per_class]
    names = list(labelled[0].iou_per_class)
    if len(names) * len(labelled) <= _MOST_BARS:
        yield Picture(plot_iou_per_class(report), alt='IoU of each class')
    else:
        cells = [[name, *(format_number(row.iou_per_class[name]) for row in labelled)] for name in names]
        yield Table(['IoU %', *(row.name for row in labelled)], cells)


def _live_table(rows: Sequence[RowReport]) -> Table:
    table = [
        [row.name, str(row.live.sent), format_number(row.live.sent_hz), str(row.live.answered), str(row.live.dropped),
         format_number(row.live.answers_hz), format_number(row.live.busy_ms),
         format_number(row.live.answered_share, 0), format_number(row.live.expected, 0)]
        for row in rows if row.live is not None
    ]  # fmt: skip
    columns = ['', 'frames', 'at Hz', 'answered', 'dropped', 'masks/s', 'ms of work', 'answered %', 'time for %']
    return Table(columns, table, (
        '"ms of work" is what the node spends on a frame by its own diagnostics (p50); "time for" is the share of the '
        'frames that this leaves time for. Where fewer were answered, frames got lost on the way, or the machine was '
        'busy with something else.'
    ))  # fmt: skip


def _times(report: FilmReport) -> Iterator[Part]:
    if any(row.median_ms for row in report.rows):
        steps = list(next(row.median_ms for row in report.rows if row.median_ms))
        rows = [[row.name, *(format_number(row.median_ms.get(step)) for step in steps)] for row in report.rows]
        yield Table(['median ms', *steps], rows, '' if len(rows) == 1 else (
            'Rows take turns on each frame; several backends in one process also disturb each other, and hybrid_seg '
            'benchmark is fairer.'
        ))  # fmt: skip
    yield Picture(plot_times(report), alt='share of frames within a time')


def _over_time(report: FilmReport) -> Iterator[Section]:
    sections = {
        'Tokens and GFLOPs': (
            ('tokens', 'tokens', 'Thin: tokens that enter the encoder; thick: those that reach its last layers.'),
            ('gflops', 'GFLOPs', 'Everything counted: policy network and auxiliary heads too. A multiply-add is 1.'),
        ),
        'Over time': (
            ('miou', 'mIoU of the frame, %', 'mIoU over the classes of each frame alone'),
            ('agreement', 'pixels as in dense, %', 'Pixels that have the class that the dense model gives them'),
            ('flicker', 'flicker, %', _FLICKER),
        ),
    }
    for title, figures in sections.items():
        pictures = [
            Picture(data, caption, f'{label} over time') for name, label, caption in figures
            if (data := plot_over_time(report, name, label, from_zero=title != 'Over time')) is not None
        ]  # fmt: skip
        if pictures:
            yield Section(title, pictures)


def _frames(best_frames: BestFrames) -> Iterator[Section]:
    legend = [best_frames.legend()] if best_frames.best else []
    for title, kept in (('Worst frames', best_frames.worst), ('Best frames', best_frames.best)):
        parts: list[Part] = legend
        for frame in kept:
            parts = [*parts, _describe(frame.record, best_frames.judge), Gallery(frame.pictures, _PICTURE_PX)]
        if kept:
            yield Section(title, parts)
            legend = []


def _describe(record: FrameRecord, row: str) -> str:
    name, quality = quality_of(record)
    words = [f'{name} {quality:.1f} %'] if name else []
    words += [] if record.gflops is None else [f'{record.gflops:.2f} GFLOPs']
    return f'Frame {record.index} at {record.time_s:.2f} s, {row}: {", ".join(words)}'
