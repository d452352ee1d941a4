"""What an exported graph says about itself; it travels in the metadata of the ONNX file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant
from hybrid_seg_ros.network.token_merging import count_entering, count_merged_windows, kept_count

METADATA_KEY = 'hybrid_seg_ros'
POLICY, WHOLE, HEAD, MIDDLE, TAIL = 'policy', 'whole', 'head', 'middle', 'tail'
OUTPUTS = ('labels', 'scores')


class GraphError(ValueError):
    """A graph or engine that cannot be used; the message names the file and says what was expected."""


@dataclass(frozen=True)
class GraphInfo:
    """One operating point of one model at one input size, as ONNX graphs.

    `merged_windows` ((size, how many), largest first), `tokens` (after merging) and `kept` ((layer, tokens that go on)
    for each pruning layer) are fixed numbers; `kept` is empty where a threshold decides, and the network then is
    several graphs (see `parts`). `outputs` is 'scores', class scores on cells of `cell_px` pixels, of the kind `kind`,
    or 'labels', a label map at the input size. `num_prefix_tokens` go through all graphs in front of the others, and no
    number above counts them.
    """

    model: str
    weights_sha256: Optional[str]
    variant: str
    precision: str
    input_size_hw: tuple[int, int]
    batch: int
    outputs: str
    kind: str
    cell_px: int
    grid_hw: tuple[int, int]
    merged_windows: tuple[tuple[int, int], ...]
    tokens: int
    kept: tuple[tuple[int, int], ...]
    num_classes: int
    num_prefix_tokens: int = 0

    @classmethod
    def describe(
        cls, spec: ModelSpec, variant: Variant, budget: TokenBudget, size_hw: tuple[int, int], batch: int = 1,
        precision: str = 'float32', outputs: str = 'scores',
    ) -> 'GraphInfo':  # fmt: skip
        """Describe the graphs of a model. Raises ValueError for a variant, budget or output it cannot have."""
        spec.check_variant(variant)
        spec.check_windows(budget)
        if outputs not in OUTPUTS:
            raise ValueError(f'unknown outputs {outputs!r}; legal are {", ".join(OUTPUTS)}')
        if batch < 1:
            raise ValueError(f'batch: expected at least 1, got {batch}')
        grid_hw = spec.backbone.grid_hw(size_hw)
        windows = budget.windows if variant.merges else ((2, 0),)
        merged, tokens = tuple(count_merged_windows(grid_hw, windows).items()), count_entering(grid_hw, windows)
        kept: list[tuple[int, int]] = []
        for stage, layer in enumerate(variant.prune_layers):
            keep = budget.keep_at(stage)
            if keep is not None:
                kept.append((layer, kept_count(kept[-1][1] if kept else tokens, keep)))
        return cls(
            spec.name, spec.sha256, str(variant), precision, tuple(size_hw), batch, outputs, spec.scores_kind,
            spec.cell_px, grid_hw, merged, tokens, tuple(kept), len(spec.classes),
            spec.backbone.num_prefix_tokens,
        )  # fmt: skip

    @property
    def prune_layers(self) -> tuple[int, ...]:
        """The pruning layers, 1-based."""
        return Variant.parse(self.variant).prune_layers

    @property
    def by_threshold(self) -> bool:
        """Whether the number of tokens that stay depends on the image."""
        return bool(self.prune_layers) and not self.kept

    @property
    def budget(self) -> TokenBudget:
        """The token budget in fixed numbers; where a threshold decides it is not stated."""
        return TokenBudget(self.merged_windows, keep=tuple(count for _, count in self.kept) or None)

    @property
    def windows(self) -> tuple[int, ...]:
        """The sides of the windows that tokens come from, ascending, as `TokenLayout` has them; (1,) if none merge."""
        return (1, *sorted(window for window, count in self.merged_windows if count))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the graphs: `whole`, or `head`, `middle@8` (up to that layer), `tail`; `policy` if any merge."""
        policy = (POLICY,) if len(self.windows) > 1 else ()
        return (*policy, *self.network_parts)

    @property
    def network_parts(self) -> tuple[str, ...]:
        """Names of the graphs without the policy network's."""
        if not self.by_threshold:
            return (WHOLE,)
        return (HEAD, *(f'{MIDDLE}@{layer}' for layer in self.prune_layers[1:]), TAIL)

    def part_path(self, path: Union[str, Path], part: str) -> Path:
        """Return where a part is kept, for the path that the user names: F.onnx, F.policy.onnx and so on."""
        path = Path(path)
        return path if part == WHOLE else path.with_name(f'{path.stem}.{part}{path.suffix}')

    def to_json(self) -> str:
        """Return the metadata entry."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> 'GraphInfo':
        """Read the metadata entry. Raises ValueError or TypeError where it is not one."""
        fields: dict[str, Any] = json.loads(text)
        for name in ('input_size_hw', 'grid_hw'):
            fields[name] = tuple(fields[name])
        for name in ('kept', 'merged_windows'):
            fields[name] = tuple((of, count) for of, count in fields[name])
        return cls(**fields)
