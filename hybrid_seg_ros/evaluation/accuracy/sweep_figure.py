"""Figure of a sweep: accuracy against GFLOPs, a panel for each pruning rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.evaluation.accuracy.sweep_results import Sweep, SweepRow
from hybrid_seg_ros.evaluation.pages.figures import (
    BAND,
    GREY,
    OTHER_STYLE,
    SMALL,
    STYLES,
    TEXT,
    LabelPlacer,
    new_figure,
    save_figure,
    style_axis,
)

RING_PX = 16  # radius around the model's own point that texts keep clear of
RULE_TITLES = {
    'keep': 'tokens kept at a pruning layer',
    'threshold': 'confidence above which tokens leave',
}
TOLERATED = 1.0
"""Points of mIoU below dense that are shaded: what a faster variant is commonly allowed to cost."""


def draw_sweep(sweep: Sweep, path: Path) -> None:
    """Draw mIoU over GFLOPs, a panel for each pruning rule, as a PNG of SIZE_PX, written whole or not at all.

    Each panel also shows the variants that do not prune; the model's own operating point has a ring. The panels differ
    in their range of mIoU: the shaded band is as high as TOLERATED in both.
    """
    figure = new_figure()
    rules = [rule for rule in RULE_TITLES if any(row.point.rule == rule for row in sweep.rows)] or [None]
    panels = figure.subplots(1, len(rules), sharex=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.065, right=0.99, bottom=0.11, top=0.88, wspace=0.12)
    subject = sweep.subject
    title = f'{subject.model} on {subject.dataset} {subject.split} ({subject.frames} frames)'
    figure.suptitle(title, fontsize=TEXT + 1)
    _limit_gflops(panels[0], sweep.rows)
    for panel, rule in zip(panels, rules):
        style_axis(panel)
        panel.set_xlabel('GFLOPs per frame, everything counted', fontsize=TEXT)
        pruned = [row for row in sweep.rows if row.point.rule == rule and rule is not None]
        panel.set_title(_panel_title(rule, pruned), fontsize=TEXT, fontweight='bold', loc='left')
        _limit_miou(panel, [row for row in sweep.rows if row.point.rule in (rule, None)])
        labels = LabelPlacer(panel, figure.canvas.get_renderer())
        _draw_references(panel, sweep, labels)
        _draw_curves(panel, pruned, labels)
        for row in sweep.rows:
            if sweep.is_default(row) and row.point.rule in (rule, None):
                _draw_default(panel, row, labels)
        _label_curves(pruned, labels)
        _label_references(sweep, labels)
    panels[0].set_ylabel('mIoU in %', fontsize=TEXT)
    save_figure(figure, path)


def _panel_title(rule: Optional[str], rows: Sequence[SweepRow]) -> str:
    """Say what tells the points of a curve apart, and what the numbers beside them are."""
    several = any(len(_by_merging(of_variant)) > 1 for of_variant in _by_variant(rows).values())
    return '' if rule is None else f'{"along a curve" if several else "numbers"}: {RULE_TITLES[rule]}'


def _draw_references(panel: Any, sweep: Sweep, labels: LabelPlacer) -> None:
    """Mark what does not prune, and shade what is nearly as accurate as dense."""
    unpruned = [row for row in sweep.rows if row.point.rule is None]
    for row in unpruned:
        if row.point.variant == 'dense':
            panel.axhspan(row.miou - TOLERATED, row.miou, color=BAND, zorder=0)
            panel.annotate(f'within {TOLERATED:g} point of dense', (1, row.miou - TOLERATED), color=GREY,
                           xycoords=panel.get_yaxis_transform(), xytext=(-5, 3), textcoords='offset points',
                           ha='right', va='bottom', fontsize=SMALL)  # fmt: skip
        panel.plot(row.gflops_mean, row.miou, '*', color='black', markersize=11, zorder=4)
        labels.avoid_line([row.gflops_mean], [row.miou])
    for variant, rows in _by_variant(unpruned).items():
        if len(rows) > 1:  # with several numbers of merged windows there is no room above
            continue
        row = rows[0]
        panel.axvline(row.gflops_mean, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        share = '' if variant == 'dense' else f'\n{100 * row.of_dense:.0f} % of dense'
        panel.annotate(variant + share, (row.gflops_mean, 1), xycoords=panel.get_xaxis_transform(),
                       xytext=(-4, -2), textcoords='offset points', ha='right', va='top', fontsize=TEXT)  # fmt: skip


def _draw_curves(panel: Any, rows: Sequence[SweepRow], labels: LabelPlacer) -> None:
    for variant, of_variant in _by_variant(rows).items():
        color, marker = STYLES.get(variant, OTHER_STYLE)
        for points in _by_merging(of_variant).values():
            x, y = [row.gflops_mean for row in points], [row.miou for row in points]
            panel.plot(x, y, color=color, marker=marker, markersize=5, linewidth=0, zorder=3)
            curve = [row for row in points if not isinstance(row.point.value, tuple)]  # one value for all layers
            panel.plot([row.gflops_mean for row in curve], [row.miou for row in curve], color=color, linewidth=1.6,
                       zorder=3)  # fmt: skip
            labels.avoid_line(x, y)


def _label_curves(rows: Sequence[SweepRow], labels: LabelPlacer) -> None:
    """Write each variant's name at its cheapest point, and values at the points.

    These are the rule's, or the number of merged windows at the cheap end of each curve if there are several.
    """
    for variant, of_variant in _by_variant(rows).items():
        end = min(of_variant, key=lambda row: row.gflops_mean)
        labels.place(variant, end.gflops_mean, end.miou, color=STYLES.get(variant, OTHER_STYLE)[0], fontsize=TEXT,
                     fontweight='bold')  # fmt: skip
    for variant, of_variant in _by_variant(rows).items():
        curves = _by_merging(of_variant)
        for row in of_variant if len(curves) == 1 else [curve[0] for curve in curves.values()]:
            text = row.point.value_text if len(curves) == 1 else f'merged {row.point.merging}'
            labels.place(text, row.gflops_mean, row.miou, fontsize=SMALL, color=STYLES.get(variant, OTHER_STYLE)[0])


def _label_references(sweep: Sweep, labels: LabelPlacer) -> None:
    """Name what does not prune and was measured with several numbers of merged windows, at the most of these."""
    for variant, rows in _by_variant([row for row in sweep.rows if row.point.rule is None]).items():
        if len(rows) > 1:
            labels.place(variant, rows[0].gflops_mean, rows[0].miou, fontsize=TEXT)


def _by_variant(rows: Sequence[SweepRow]) -> dict[str, list[SweepRow]]:
    names = dict.fromkeys(row.point.variant for row in rows)
    return {name: [row for row in rows if row.point.variant == name] for name in names}


def _by_merging(rows: Sequence[SweepRow]) -> dict[str, list[SweepRow]]:
    names = dict.fromkeys(row.point.merging for row in rows)
    return {name: [row for row in rows if row.point.merging == name] for name in names}


def _draw_default(panel: Any, row: SweepRow, labels: LabelPlacer) -> None:
    panel.plot(row.gflops_mean, row.miou, 'o', markersize=13, markerfacecolor='none', markeredgecolor='black',
               markeredgewidth=1.5, zorder=5)  # fmt: skip
    labels.avoid_box(row.gflops_mean, row.miou, RING_PX)
    labels.place(f'default: {100 * row.of_dense:.0f} %', row.gflops_mean, row.miou, marker_px=2 * RING_PX,
                 fontsize=TEXT, fontweight='bold')  # fmt: skip


def _limit_gflops(panel: Any, rows: Sequence[SweepRow]) -> None:
    low, high = min(row.gflops_mean for row in rows), max(row.gflops_mean for row in rows)
    span = max(high - low, 0.1 * high)
    panel.set_xlim(low - 0.15 * span, high + 0.06 * span)


def _limit_miou(panel: Any, rows: Sequence[SweepRow]) -> None:
    """Leave room for the texts, and keep differences that mean nothing from filling the panel."""
    low, high = min(row.miou for row in rows), max(row.miou for row in rows)
    low = min(low, high - 1.2 * TOLERATED)
    panel.locator_params('y', nbins=7, steps=(1, 2, 5, 10))
    panel.set_ylim(low - 0.06 * (high - low), high + 0.55 * (high - low))  # above: the names of the references
