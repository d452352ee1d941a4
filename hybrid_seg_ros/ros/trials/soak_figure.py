"""Picture of a soak: the node's memory and its latency over the frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybrid_seg_ros.evaluation.pages.figures import GREY, SMALL, STYLES, TEXT, new_figure, save_figure, style_axis
from hybrid_seg_ros.ros.trials.soak_report import SoakReport

_SIZE_PX = (1200, 800)
_RESIDENT, _OWN, _SHARED = (STYLES[name][0] for name in ('dtop@6+8', 'hybrid@6+8', 'dtop@8'))


def draw_soak(report: SoakReport, path: Path) -> None:
    """Draw resident memory, and p50 and p95 of the latency, over the number of frames; written whole or not at all."""
    figure = new_figure(_SIZE_PX)
    memory, latency = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.08, right=0.86, bottom=0.09, top=0.86, hspace=0.16)
    figure.suptitle(f'{report.model}\n{report.machine}', fontsize=TEXT - 1)
    frames = [sample.frames for sample in report.samples]
    processes = [sample.process for sample in report.samples]
    for axis in (memory, latency):
        style_axis(axis)
        axis.set_xlim(0, max(frames) if frames else 1)
    for name, color, values in (
        ('resident', _RESIDENT, [process.resident_mib for process in processes]),
        ('its own', _OWN, [process.anonymous_mib for process in processes]),
        ('shared (DDS)', _SHARED, [process.shared_mib for process in processes]),
    ):
        _draw_line(memory, name, color, frames, values)
    memory.set_ylim(bottom=0)
    memory.set_ylabel('memory in MiB', fontsize=TEXT)
    change = report.resident_mib
    if change is not None:
        text = f'{change.growth:+.1f} MiB from the first to the last tenth, {report.slope_mib:+.3f} MiB in 1000 frames'
        memory.set_title(text, fontsize=TEXT, fontweight='bold', loc='left')
    _draw_line(latency, 'p50', GREY, frames, [sample.p50_ms for sample in report.samples], lift_px=-7)
    _draw_line(latency, 'p95', _OWN, frames, [sample.p95_ms for sample in report.samples], lift_px=7)
    latency.set_ylim(bottom=0)
    latency.set_ylabel('image to mask in ms', fontsize=TEXT)
    latency.set_xlabel(f'frames; {report.lost} of {report.sent} lost', fontsize=TEXT)
    save_figure(figure, path)


def _draw_line(axis: Any, name: str, color: str, x: list[int], y: list[float], lift_px: int = 0) -> None:
    axis.plot(x, y, color=color, linewidth=1.4)
    if x:
        axis.annotate(name, (x[-1], y[-1]), xytext=(6, lift_px), textcoords='offset points', color=color,
                      fontsize=SMALL + 1, va='center', annotation_clip=False)  # fmt: skip
