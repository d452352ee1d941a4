"""Figure 1.3: what each layer costs, auxiliary heads included, in GFLOPs and milliseconds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch

from hybrid_seg_ros.evaluation.benchmark.network_parts import WHOLE_NETWORK, parts_of, parts_of_steps
from hybrid_seg_ros.evaluation.benchmark.rounds import run_interleaved, timed_call
from hybrid_seg_ros.evaluation.flops.count import count_flops, expected_tokens
from hybrid_seg_ros.evaluation.pages.figures import SMALL, TEXT, figure_png, new_figure, style_axis, variant_color
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter


@dataclass(frozen=True)
class StepCost:
    """A step of the network: its name as in `count_flops`, and what it costs; `ms` is None where it is not timed.

    `fps_up_to_here` is 1000 / (milliseconds of this and all earlier steps); None before the first that is timed.
    """

    name: str
    gflops: float
    ms: Optional[float]
    fps_up_to_here: Optional[float]


@dataclass(frozen=True)
class LayerCosts:
    """The steps of a variant, in order, for one input of the network with `tokens` on entry and after each pruning.

    `network_ms` is what the whole network takes, in the same rounds.
    """

    variant: str
    tokens: tuple[int, ...]
    steps: tuple[StepCost, ...]
    network_ms: float

    @property
    def gflops(self) -> float:
        """GFLOPs of all steps."""
        return sum(step.gflops for step in self.steps)

    @property
    def parts_ms(self) -> float:
        """Milliseconds of all steps that are timed."""
        return sum(step.ms or 0.0 for step in self.steps)


def measure_layers(
    network: HybridSegmenter, budgets: Mapping[Variant, TokenBudget], device: torch.device, rounds: int, seed: int = 0
) -> list[LayerCosts]:
    """Time the parts of a network alone, in interleaved rounds, and return what each step of each variant costs.

    `network` is ready for inference, in float32 on `device`; each budget has a fixed keep. A part that several steps or
    variants run on as many tokens is timed once. Not timed: choosing windows and tokens, gathering them and writing
    them back.
    """
    calls: dict[str, Callable[[], Any]] = {}
    for variant, budget in budgets.items():
        with device:  # the inputs of the parts are made here
            calls = {**parts_of(network, [variant], budget), **calls}
    tasks = {name: timed_call(call, 1, device) for name, call in calls.items()}
    laps = run_interleaved(tasks, rounds, seed)
    medians = {name: statistics.median(each) for name, each in laps.items()}
    return [layer_costs(network.spec, variant, budget, medians) for variant, budget in budgets.items()]


def layer_costs(
    spec: ModelSpec, variant: Variant, budget: TokenBudget, parts_ms: Mapping[str, float]
) -> LayerCosts:
    """Lay the milliseconds of the parts beside the GFLOPs of the steps that run them."""
    parts = parts_of_steps(spec, variant, budget)
    entering, kept = expected_tokens(spec, spec.network_size_hw, variant, budget)
    steps, passed_ms = [], 0.0
    for step in count_flops(spec, spec.network_size_hw, variant, entering, kept).steps:
        ms = parts_ms[parts[step.name]] if step.name in parts else None
        passed_ms += ms or 0.0
        steps.append(StepCost(step.name, step.flops / 1e9, ms, 1000.0 / passed_ms if passed_ms else None))
    tokens = (entering, *(count for _, count in kept))
    return LayerCosts(str(variant), tokens, tuple(steps), parts_ms[f'{WHOLE_NETWORK}, {variant}'])


SIZE_PX = (1500, 900)
AUXILIARY_COLOR = '#E69F00'
REFERENCE_COLOR = '#BBBBBB'
BEFORE, BEHIND = 'in', 'out'
"""What stands before the first layer (embedding, policy), and behind the last (head, refinement, upsampling)."""


def draw_layers(layers: Sequence[LayerCosts], title: str) -> bytes:
    """Return a PNG of SIZE_PX: rows GFLOPs, milliseconds, speed up to a layer; columns the variants.

    A bar is a layer; auxiliary heads stand behind their layer, in orange. The first variant stands behind the others
    as a grey outline.
    """
    figure = new_figure(SIZE_PX)
    figure.suptitle(title, fontsize=TEXT, x=0.012, y=0.985, ha='left')
    panels = figure.subplots(3, len(layers), sharey='row', squeeze=False)
    figure.subplots_adjust(left=0.065, right=0.995, bottom=0.04, top=0.825, wspace=0.06, hspace=0.15)
    places = {place: index for index, place in enumerate(_all_places(layers))}
    rows: tuple[tuple[str, Callable[[Sequence[StepCost]], Optional[float]]], ...] = (
        ('GFLOPs', lambda steps: sum(step.gflops for step in steps)),
        ('ms, timed alone', lambda steps: sum(step.ms or 0.0 for step in steps)),
        ('FPS up to here', lambda steps: steps[-1].fps_up_to_here),
    )
    for column, costs in enumerate(layers):
        color = variant_color(costs.variant)
        for line, (name, value) in enumerate(rows):
            panel = panels[line][column]
            style_axis(panel)
            _draw_reference(panel, layers[0], places, value, line == 2)
            for place, steps in steps_by_place(costs).items():
                of_place = AUXILIARY_COLOR if place.startswith('h') else color
                if line < 2:
                    panel.bar(places[place], value(steps), 0.86, color=of_place)
                else:
                    panel.plot(places[place], value(steps), 'o', markersize=3.5, color=of_place)
            if column == 0:
                panel.set_ylabel(name, fontsize=TEXT)
            ticks = _ticks(list(places))
            panel.set_xticks([places[place] for place in ticks], ticks)
            panel.tick_params(labelsize=SMALL)
            panel.set_xlim(-0.8, len(places) - 0.2)
        panels[0][column].set_title(costs.variant, fontsize=TEXT, color=color, fontweight='bold', loc='left', pad=30)
        panels[0][column].annotate(f'{costs.gflops:.2f} GFLOPs\n{costs.network_ms:.3g} ms', (0, 1), (0, 4),
                                   xycoords='axes fraction', textcoords='offset points', fontsize=SMALL)  # fmt: skip
    _scale_speed(panels[2][0])
    return figure_png(figure)


def _ticks(places: Sequence[str]) -> list[str]:
    """Return the places that are named below the bars: both ends, and every other layer that has room."""
    layers = [place for place in places if place.isdigit()]
    step = 2 * -(-len(layers) // 16)
    return [BEFORE, *(place for place in layers[:-1] if int(place) % step == 0), BEHIND]


def _scale_speed(panel: Any) -> None:
    """Give the panels of speeds a logarithmic scale with plain numbers: the first layers alone are very fast."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    panel.set_yscale('log')
    low, high = panel.get_ylim()
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8) if high < 10 * low else (1, 3)))
    panel.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _draw_reference(
    panel: Any, costs: LayerCosts, places: dict[str, int], value: Callable[[Sequence[StepCost]], Optional[float]],
    as_line: bool,
) -> None:  # fmt: skip
    """Draw the first variant: outlines of its bars, or a line through its points."""
    by_place = steps_by_place(costs)
    x = [places[place] for place in by_place]
    y = [value(steps) for steps in by_place.values()]
    if as_line:
        panel.plot(x, y, color=REFERENCE_COLOR, linewidth=1.2, zorder=1)
    else:
        panel.bar(x, y, 0.86, facecolor='none', edgecolor=REFERENCE_COLOR, linewidth=1, zorder=1)


def steps_by_place(costs: LayerCosts) -> dict[str, list[StepCost]]:
    """Return the steps by where they stand: a layer, 'h6' for a head behind layer 6, or before or behind all."""
    places: dict[str, list[StepCost]] = {}
    for step in costs.steps:
        kind, _, number = step.name.rpartition(' ')
        place = {'layer': number, 'auxiliary head': f'h{number}'}.get(kind, BEHIND if '1' in places else BEFORE)
        places.setdefault(place, []).append(step)
    return places


def _all_places(layers: Sequence[LayerCosts]) -> list[str]:
    """Return the places of all variants in order; those of heads that only some have among them."""
    found = {place for costs in layers for place in steps_by_place(costs)}
    numbers = sorted((int(place.strip('h')), place) for place in found - {BEFORE, BEHIND})  # '6' before 'h6'
    return [BEFORE, *(place for _, place in numbers), BEHIND]
