"""Everything that `hybrid_seg paper` measured, and whether what saves GFLOPs saves time."""

from __future__ import annotations

from dataclasses import dataclass

from hybrid_seg_ros.evaluation.benchmark_rows import FEWEST_ROUNDS, Violation
from hybrid_seg_ros.evaluation.paper.layer_costs import LayerCosts
from hybrid_seg_ros.evaluation.paper.measured_rows import PaperRow


@dataclass(frozen=True)
class Subject:
    """What was measured, on what, and how; `weights` is 'random', or the sha256 of the file.

    `pruning` says by what rule tokens leave in the tables, `sliding` that the network sees crops of `size_hw`,
    `threshold` above which confidence they leave in the pictures, `parts_device` on what the layers were timed, in
    PyTorch and float32.
    """

    model: str
    weights: str
    size_hw: tuple[int, int]
    sliding: bool
    classes: int
    dataset: str
    split: str
    frames: int
    backend: str
    dtype: str
    device: str
    parts_device: str
    rounds: int
    pruning: str
    threshold: float


@dataclass(frozen=True)
class PaperTables:
    """The numbers: a row per variant, what each layer costs, and which variants were left out and why.

    `slower` are those that take fewer GFLOPs than another and are slower, beyond noise.
    """

    subject: Subject
    rows: tuple[PaperRow, ...]
    layers: tuple[LayerCosts, ...]
    left_out: dict[str, str]
    slower: tuple[Violation, ...]

    def verdict(self) -> str:
        """Say whether each variant that saves GFLOPs also saves time; this is what merging and pruning are for."""
        saving = [row for row in self.rows if row.gflops_change < 0]
        failing = [row.variant for row in saving if row.saves_and_is_not_faster]
        if not saving:
            return 'No variant takes fewer GFLOPs than the dense one.'
        if not failing:
            text = 'Every variant that takes fewer GFLOPs than the dense one is also faster'
        else:
            text = f'Not faster than the dense one, though of fewer GFLOPs: {", ".join(failing)}'
        text += f' (median over {self.subject.rounds} rounds of the quotient in each round).'
        if self.subject.rounds < FEWEST_ROUNDS:
            return text + f' That is not to be relied on: it takes at least {FEWEST_ROUNDS} rounds to tell from chance.'
        names = [f'{each.cheaper.variant} than {each.dearer.variant}' for each in self.slower]
        found = f'slower though of fewer GFLOPs: {", ".join(names)}' if names else 'none is slower than a dearer one'
        return f'{text} Beyond noise, {found}.'
