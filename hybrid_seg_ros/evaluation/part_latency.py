"""`hybrid_seg time-parts`: milliseconds of a model's parts, and of those of other models beside them, in one run."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hybrid_seg_ros.evaluation.benchmark.machine import describe_cpu
from hybrid_seg_ros.evaluation.flops.count import expected_tokens
from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.inference.pipeline_options import add_keep_argument, say_what_has_no_effect
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.attention_to_mask import SegVitHead
from hybrid_seg_ros.network.inference_form import prepare_for_inference
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.token_counts import count_entering

Part = Callable[[], Any]

AUXILIARY_HEAD, HEAD = 'auxiliary head', 'head'
WHOLE_NETWORK = 'whole network'
KEEP = 0.6


def time_parts(
    models: dict[str, HybridSegmenter], variants: Sequence[Variant], budget: TokenBudget, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each part of each model, batch 1, on the CPU, without pre- and postprocessing.

    Each of `rounds` rounds runs every part of every model once, in turn, so that a busy machine slows all alike.
    """
    parts = {(name, part): call for name, model in models.items() for part, call in
             parts_of(prepare_for_inference(model.eval()), variants, budget).items()}  # fmt: skip
    laps: dict[tuple[str, str], list[float]] = {key: [] for key in parts}
    with torch.inference_mode():
        for call in parts.values():
            call()
        for _ in tqdm(range(rounds), desc='time-parts', unit='round', leave=False):
            for key, call in parts.items():
                start = time.perf_counter()
                call()
                laps[key].append((time.perf_counter() - start) * 1e3)
    table: dict[str, dict[str, float]] = {name: {} for name in models}
    for (name, part), times in laps.items():
        table[name][part] = statistics.median(times)
    return table


@dataclass(frozen=True)
class Stage:
    """A stretch of the encoder: so many layers on so many tokens, and the head behind them."""

    layers: int
    tokens: int
    head: str


def encoder_stages(spec: ModelSpec, variant: Variant, budget: TokenBudget) -> list[Stage]:
    """List the stages of a variant. Raises ValueError for a budget that prunes by threshold."""
    entering, kept = expected_tokens(spec, spec.network_size_hw, variant, budget)
    ends = [*(layer for layer, _ in kept), spec.backbone.depth]
    counts = [entering, *(count for _, count in kept)]
    heads = [*[AUXILIARY_HEAD] * len(kept), HEAD]
    return [Stage(end - start, *each) for start, end, *each in zip([0, *ends], ends, counts, heads)]


def block_part(tokens: int) -> str:
    """Name the part that is one block on so many tokens."""
    return f'block, {tokens} tokens'


def head_part(stage: Stage) -> str:
    """Name the part that is the head of a stage."""
    return f'{stage.head}, {stage.tokens} tokens'


def sum_parts(
    parts_ms: Mapping[str, float], spec: ModelSpec, variant: Variant, budget: TokenBudget
) -> dict[str, float]:
    """Add up the milliseconds of `parts_of` to those of one image: each part as often as the variant runs it.

    What is missing from the whole network is small: position embedding, merging, gathering tokens, writing them back.
    """
    stages = encoder_stages(spec, variant, budget)
    sums = {'embedding': parts_ms['embedding']}
    if variant.merges:
        sums['policy'] = parts_ms['policy']
    sums['blocks'] = sum(stage.layers * parts_ms[block_part(stage.tokens)] for stage in stages)
    if variant.prune_layers:
        sums['auxiliary_heads'] = sum(parts_ms[head_part(stage)] for stage in stages[:-1])
    sums['head'] = parts_ms[head_part(stages[-1])]
    if spec.refinement != 'none':
        sums['refinement'] = parts_ms['refinement']
    return sums


def parts_of(model: HybridSegmenter, variants: Sequence[Variant], budget: TokenBudget) -> dict[str, Part]:
    """Return calls that run one part each, on inputs of the size that they have in the whole model."""
    spec = model.spec
    grid_hw = spec.backbone.grid_hw(spec.network_size_hw)
    cells = grid_hw[0] * grid_hw[1]
    merged = count_entering(grid_hw, budget.windows)
    image = torch.zeros(1, 3, *(side * spec.backbone.patch_size for side in grid_hw))
    image = image.contiguous(memory_format=torch.channels_last)  # as `normalize` leaves it
    parts: dict[str, Part] = {}
    parts['embedding'] = lambda: model.encoder.patch_embed(image)
    if model.policy is not None:
        parts['policy'] = lambda: model.window_logits(image)
    stages = [stage for variant in variants for stage in encoder_stages(spec, variant, budget)]
    for count in dict.fromkeys((cells, merged, *(stage.tokens for stage in stages))):
        tokens = torch.randn(1, spec.backbone.num_prefix_tokens + count, spec.backbone.embed_dim)
        parts[block_part(count)] = lambda tokens=tokens: model.encoder.blocks[0](tokens)
    auxiliary = next(iter(model.auxiliary_heads.values()), None)
    for stage in (Stage(1, merged, AUXILIARY_HEAD), *stages):
        tokens = torch.randn(1, stage.tokens, spec.backbone.embed_dim)
        head = model.head if stage.head == HEAD else auxiliary
        if head is not None:
            seen = [tokens] * len(model.head_layers) if isinstance(head, SegVitHead) else tokens
            parts[head_part(stage)] = lambda head=head, seen=seen: head(seen)
    if model.refinement is not None:
        masks = torch.randn(1, len(spec.classes), *grid_hw)
        parts['refinement'] = lambda: model.refinement(masks, masks, model.refinement.detail(image))
    for variant in variants:
        parts[f'{WHOLE_NETWORK}, {variant}'] = lambda variant=variant: model(image, variant, budget)
    return parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('models', type=Path, nargs='+', help='model specifications (YAML); weights are not needed')
    parser.add_argument('--variants', nargs='*', default=['dense', 'cts', 'hybrid@8'], help='(default: %(default)s)')
    add_keep_argument(parser, f"the first model's own where it has one, else {KEEP}")
    parser.add_argument('--rounds', type=int, default=20, help='(default: %(default)s)')
    parser.add_argument('--threads', type=int, help='CPU threads of PyTorch')
    parser.add_argument('--json', type=Path, help='write the table here')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.rounds < 1:
        raise ValueError(f'--rounds: expected at least 1, got {args.rounds}')
    if args.threads:
        torch.set_num_threads(args.threads)
    specs = [ModelSpec.load(path) for path in args.models]
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        names = [str(path) for path in args.models]
    models = {name: HybridSegmenter(spec) for name, spec in zip(names, specs)}
    variants = [Variant.parse(name) for name in args.variants]
    say_what_has_no_effect(args, variants)
    budget = dataclasses.replace(specs[0].budget, keep=args.keep or specs[0].budget.keep or KEEP)
    table = time_parts(models, variants, budget, args.rounds)
    print(f'milliseconds, median of {args.rounds} interleaved rounds, float32; {describe_cpu(torch.get_num_threads())}')
    for name, row in table.items():
        print(name)
        for part, milliseconds in row.items():
            print(f'  {part:<32}{milliseconds:9.2f}')
    if args.json:
        write_json(args.json, table)
    return 0
