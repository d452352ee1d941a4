"""Figure 1.3 in numbers: what each layer costs, auxiliary heads included, in GFLOPs and milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

import torch

from hybrid_seg_ros.evaluation.flops import expected_tokens, merged_sizes
from hybrid_seg_ros.evaluation.interleaved_rounds import run_interleaved
from hybrid_seg_ros.evaluation.layer_flops import layer_flops
from hybrid_seg_ros.evaluation.part_latency import (
    AUXILIARY_HEAD,
    WHOLE_NETWORK,
    block_part,
    encoder_stages,
    head_part,
    parts_of,
)
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.segmenter import HybridSegmenter


@dataclass(frozen=True)
class StepCost:
    """A step of the network: its name as in `layer_flops`, and what it costs; `ms` is None where it is not timed.

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
        needed = {*parts_of_steps(network.spec, variant, budget).values(), whole_network(variant)}
        with device:  # the inputs of the parts are made here
            for name, call in parts_of(network, [variant], budget).items():
                if name in needed:
                    calls.setdefault(name, call)
    tasks = {name: _timed(call, device) for name, call in calls.items()}
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
    windows = merged_sizes(spec.backbone.grid_hw(spec.network_size_hw), budget)
    for name, flops in layer_flops(spec, spec.network_size_hw, variant, entering, kept, windows):
        ms = parts_ms[parts[name]] if name in parts else None
        passed_ms += ms or 0.0
        steps.append(StepCost(name, flops / 1e9, ms, 1000.0 / passed_ms if passed_ms else None))
    tokens = (entering, *(count for _, count in kept))
    return LayerCosts(str(variant), tokens, tuple(steps), parts_ms[whole_network(variant)])


def whole_network(variant: Variant) -> str:
    """Return the name of the part of `parts_of` that is all of them."""
    return f'{WHOLE_NETWORK}, {variant}'


def parts_of_steps(spec: ModelSpec, variant: Variant, budget: TokenBudget) -> dict[str, str]:
    """Return, for each step that can be timed, the name of the part of `parts_of` that it is one run of."""
    parts = {'embedding': 'embedding'}
    if variant.merges:
        parts['policy'] = 'policy'
    layer = 0
    for stage in encoder_stages(spec, variant, budget):
        for _ in range(stage.layers):
            layer += 1
            parts[f'layer {layer}'] = block_part(stage.tokens)
        parts[f'auxiliary head {layer}' if stage.head == AUXILIARY_HEAD else 'head'] = head_part(stage)
    if spec.refinement != 'none':
        parts['refinement'] = 'refinement'
    return parts


def _timed(call: Callable[[], Any], device: torch.device) -> Callable[[int], float]:
    """Return a task that runs a part twice, and returns the milliseconds of the second run."""

    @torch.inference_mode()
    def run(number: int) -> float:
        call()
        _wait_for(device)
        start = time.perf_counter()
        call()
        _wait_for(device)
        return (time.perf_counter() - start) * 1e3

    return run


def _wait_for(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
