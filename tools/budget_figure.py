"""Picture of a latency budget: latency, tokens and mIoU over time, with a budget and with a fixed point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from budget_report import SETTLED_S, BudgetReport, BudgetRun

from hybrid_seg_ros.evaluation.pages.figures import BAND, GREY, SMALL, TEXT, new_figure, save_figure, style_axis

_SIZE_PX = (1600, 1280)
_COLORS = {'budget': '#0072B2', 'fixed': '#D55E00'}


def draw_budget(report: BudgetReport, path: Path) -> None:
    """Draw the report as a PNG, written whole or not at all."""
    figure = new_figure(_SIZE_PX)
    latency, tokens, miou = figure.subplots(3, 1, sharex=True, gridspec_kw={'height_ratios': (5, 3, 3)})
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.075, top=0.9, hspace=0.16)
    figure.suptitle(f'A latency budget of {report.target_ms:g} ms under changing load', fontsize=TEXT + 2,
                    fontweight='bold')  # fmt: skip
    end_s = max(phase.end_s for run in report.runs for phase in run.phases)
    for axis in (latency, tokens, miou):
        style_axis(axis)
        axis.set_xlim(0, end_s)
        for phase in report.runs[0].phases:
            if phase.name == 'loaded':
                axis.axvspan(phase.start_s, phase.end_s, color=BAND, zorder=0)
    for run in reversed(report.runs):
        color = _COLORS.get(run.name, GREY)
        times = [frame.time_s for frame in run.frames]
        latency.plot(times, [frame.latency_ms for frame in run.frames], '.', color=color, markersize=4, alpha=0.75)
        tokens.plot(times, [frame.tokens for frame in run.frames], color=color, linewidth=1.8, drawstyle='steps-post')
        _draw_miou(miou, run, color, above=run is not report.runs[0])
    _finish_latency(latency, report)
    tokens.set_ylabel('tokens per layer', fontsize=TEXT)
    tokens.set_ylim(0, None)
    for phase in report.runs[0].phases:
        if phase.name == 'loaded':
            text = f'{report.busy} of {report.cores} cores busy elsewhere'
            tokens.annotate(text, ((phase.start_s + phase.end_s) / 2, 0), xytext=(0, 5), textcoords='offset points',
                            ha='center', color=GREY, fontsize=TEXT)  # fmt: skip
    middle, half = sum(miou.get_ylim()) / 2, max(1.0, 0.75 * (miou.get_ylim()[1] - miou.get_ylim()[0]))
    miou.set_ylim(middle - half, middle + half)  # differences that mean nothing must not fill the panel
    miou.set_ylabel('mIoU in %', fontsize=TEXT)
    miou.set_xlabel('seconds', fontsize=TEXT)
    save_figure(figure, path)


def _finish_latency(axis: Any, report: BudgetReport) -> None:
    slowest = max(frame.latency_ms for run in report.runs for frame in run.frames)
    axis.set_ylim(0, 1.2 * slowest)  # above: the percentiles
    axis.axhline(report.target_ms, color='black', linewidth=1.2, linestyle=(0, (4, 3)))
    axis.annotate('budget', (1, report.target_ms), xycoords=axis.get_yaxis_transform(), xytext=(-2, 4),
                  textcoords='offset points', ha='right', fontsize=TEXT,
                  bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 1, 'alpha': 0.8})  # fmt: skip
    axis.set_ylabel('ms from image to mask', fontsize=TEXT)
    for index, run in enumerate(report.runs):
        name = 'point chosen by the budget' if run.name == 'budget' else f'fixed: {report.points[-1]}'
        axis.annotate(name, (0.42 * index, 1), xycoords='axes fraction', xytext=(0, 8), textcoords='offset points',
                      color=_COLORS.get(run.name, GREY), fontsize=TEXT, fontweight='bold')  # fmt: skip
        for phase in run.phases:
            text = f'p95 {phase.p95_ms:.0f} ms, after {SETTLED_S:g} s {phase.p95_settled_ms:.0f}'
            axis.annotate(text, ((phase.start_s + phase.end_s) / 2, 1 - 0.07 * index),
                          xycoords=axis.get_xaxis_transform(), xytext=(0, -4), textcoords='offset points', ha='center',
                          va='top', color=_COLORS.get(run.name, GREY), fontsize=TEXT)  # fmt: skip


def _draw_miou(axis: Any, run: BudgetRun, color: str, above: bool) -> None:
    for phase in run.phases:
        if phase.miou is not None:
            axis.plot((phase.start_s, phase.end_s), (phase.miou, phase.miou), color=color, linewidth=3)
            axis.annotate(f'{phase.miou:.1f}', ((phase.start_s + phase.end_s) / 2, phase.miou),
                          xytext=(0, 4 if above else -4), textcoords='offset points', ha='center',
                          va='bottom' if above else 'top', color=color, fontsize=SMALL)  # fmt: skip
