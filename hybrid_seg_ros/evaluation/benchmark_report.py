"""A benchmark's results, as JSON and as tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from hybrid_seg_ros.evaluation.benchmark_plan import Subject, format_size
from hybrid_seg_ros.evaluation.benchmark_rows import BenchmarkRow
from hybrid_seg_ros.evaluation.text_table import format_table, format_tokens
from hybrid_seg_ros.files import write_json

DISTURBED = 0.05
"""Where a ratio of medians and the rounds' own ratio differ by more than this, something else ran beside the rows."""

COLUMNS = ('model', 'size', 'variant', 'backend', 'dtype', 'GFLOPs', 'tokens', 'ms', 'p95 ms', 'vs dense', 'vs plain',
           'vs alternative', 'preprocess', 'network', 'postprocess', 'peak MiB')  # fmt: skip
NAMES = 5
"""So many columns are names, flush left; the others are numbers, flush right."""


@dataclass(frozen=True)
class Benchmark:
    """The rows of one run, on one device."""

    device: str
    rows: tuple[BenchmarkRow, ...]

    @property
    def subjects(self) -> list[Subject]:
        """The models at their sizes, in order."""
        return list(dict.fromkeys(row.subject for row in self.rows))

    def rows_of(self, subject: Subject) -> list[BenchmarkRow]:
        """Return the rows of a model at a size."""
        return [row for row in self.rows if row.subject == subject]

    def save_json(self, path: Path) -> None:
        """Write everything, whole or not at all."""
        write_json(path, dataclasses.asdict(self))

    def text(self) -> str:
        """Return heading, table in aligned columns, and the parts of the networks."""
        table = format_table(COLUMNS, [row_cells(row) for row in self.rows], names=NAMES)
        return '\n'.join([self.heading(), table, *self._parts(), *self.remarks()]) + '\n'

    def markdown(self) -> str:
        """Return heading and table in Markdown; the fastest row of each model and size is in bold."""
        rows = []
        for row in self.rows:
            cells = row_cells(row)
            if row.median_ms == min(other.median_ms for other in self.rows if other.subject == row.subject):
                cells = [f'**{cell}**' if COLUMNS[column] == 'ms' else cell for column, cell in enumerate(cells)]
            rows.append(cells)
        lines = [self.heading(), '', format_table(COLUMNS, rows, markdown=True, names=NAMES)]
        return '\n'.join([*lines, *([''] if self.remarks() else []), *self.remarks()]) + '\n'

    def heading(self) -> str:
        """Say what the numbers are, and of what."""
        rounds = self.rows[0].rounds
        return (
            f'Milliseconds per frame from image to label map and confidence, median of {rounds} interleaved rounds, '
            f'all counted; {self.device}.'
        )

    def remarks(self) -> list[str]:
        """Say what a reader must know to judge the numbers."""
        found = []
        trained = {row.model for row in self.rows if row.weights != 'random'}
        random = dict.fromkeys(
            f'{row.model} on {row.backend}' if row.model in trained else row.model
            for row in self.rows if row.weights == 'random'
        )  # fmt: skip
        if random:
            found.append(f'Random weights: {", ".join(random)}.')
        disturbed = [row for row in self.rows if _is_disturbed(row)]
        if disturbed:
            found.append(
                f'{len(disturbed)} of {len(self.rows)} rows were disturbed: their ratio of medians differs by more '
                f"than {100 * DISTURBED:.0f} % from the median of the rounds' ratios."
            )  # fmt: skip
        return found

    def _parts(self) -> list[str]:
        lines = []
        for row in self.rows:
            parts = {name.partition('.')[2]: ms for name, ms in row.parts_ms.items() if name.startswith('network.')}
            if parts:
                named = ', '.join(f'{name} {ms:.1f}' for name, ms in parts.items())
                lines.append(f'  {row.subject} {row.variant}, {row.backend} {row.dtype}: {named}')
        return ['parts of the network, ms:', *lines] if lines else []


def row_cells(row: BenchmarkRow) -> list[str]:
    """Return a row of the table, as COLUMNS name it."""
    tokens = format_tokens(row.tokens)
    return [
        row.model, format_size(row.size_hw), row.variant, row.backend, row.dtype, f'{row.gflops:.2f}', tokens,
        f'{row.median_ms:.1f}', f'{row.p95_ms:.1f}', times(row.ratio_to_dense), times(row.ratio_to_plain),
        times(row.ratio_to_alternative),
        *(f'{row.parts_ms[step]:.1f}' for step in ('preprocess', 'network', 'postprocess')),
        '' if row.peak_memory_mb is None else f'{row.peak_memory_mb:.0f}',
    ]  # fmt: skip


def times(ratio: Optional[float]) -> str:
    """Write a ratio as `1.72x`; nothing where there is none."""
    return '' if ratio is None else f'{ratio:.2f}x'


def _is_disturbed(row: BenchmarkRow) -> bool:
    pairs = (
        (row.ratio_to_dense, row.ratio_to_dense_paired), (row.ratio_to_plain, row.ratio_to_plain_paired),
        (row.ratio_to_alternative, row.ratio_to_alternative_paired),
    )  # fmt: skip
    return any(medians is not None and abs(medians / paired - 1) > DISTURBED for medians, paired in pairs)
