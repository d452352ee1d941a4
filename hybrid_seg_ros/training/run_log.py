"""What a run writes down: log.csv per step, evaluations.jsonl, and both for TensorBoard with pictures."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from hybrid_seg_ros.files import finite_or_null, whole_file, write_text
from hybrid_seg_ros.training.stage import EvaluationReport

log = logging.getLogger(__name__)


class RunLog:
    """The files of one run; what a killed run wrote after step `done` is taken off, for it is done again."""

    def __init__(self, run_dir: Path, done: int) -> None:
        self._csv, self._jsonl = run_dir / 'log.csv', run_dir / 'evaluations.jsonl'
        self._columns = _cut_csv(self._csv, done)
        self._evaluations = _cut_jsonl(self._jsonl, done)
        self._board = _open_tensorboard(run_dir / 'tensorboard', done)

    def step(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Write the losses of a step (counted from 0) and how long it took."""
        row = {'step': step, **values, 'seconds': round(seconds, 3)}
        if any(name not in self._columns for name in row):
            self._columns = _widen_csv(self._csv, self._columns, list(row))
        with open(self._csv, 'a', newline='', encoding='utf-8') as stream:
            csv.DictWriter(stream, self._columns, restval='', lineterminator='\n').writerow(row)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f'train/{name}', value, step + 1)  # steps done, as evaluations are

    def evaluation(self, done: int, report: EvaluationReport) -> None:
        """Write the evaluation after `done` steps."""
        line = {'step': done, **report.numbers}
        log.info('%s', line)
        with open(self._jsonl, 'a', encoding='utf-8') as stream:
            stream.write(_as_line(line))
            stream.flush()
            os.fsync(stream.fileno())
        self._evaluations.append(line)
        if self._board is not None:
            for name, value in report.numbers.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f'evaluation/{name}', value, done)
            for name, picture in report.pictures:
                self._board.add_image(f'evaluation/{name}', picture, done, dataformats='HWC')
            self._board.flush()

    def is_evaluated(self, done: int) -> bool:
        """Tell whether the evaluation after `done` steps is written."""
        return any(line['step'] == done for line in self._evaluations)

    def best(self, metric: str) -> Optional[float]:
        """Return the highest value of a number so far; of `-name`, the highest of its negative."""
        values = [metric_value(line, metric) for line in self._evaluations]
        return max((value for value in values if not math.isnan(value)), default=None)

    def sync(self) -> None:
        """Wait until log.csv is on the disk: a saved state must not be ahead of it."""
        if self._csv.is_file():
            with open(self._csv, 'rb') as stream:
                os.fsync(stream.fileno())

    def close(self) -> None:
        """Flush and close."""
        if self._board is not None:
            self._board.close()


def metric_value(numbers: Mapping[str, Any], metric: str) -> float:
    """Return the number that `metric` names, negated for `-name`; NaN where there is none."""
    value = numbers[metric.removeprefix('-')]
    return math.nan if value is None else -float(value) if metric.startswith('-') else float(value)


def _cut_csv(path: Path, done: int) -> list[str]:
    """Leave the rows of the first `done` steps; returns the columns."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    whole = [line for line in lines if line.endswith('\n')]  # a kill can leave half a row
    if not whole:
        path.unlink()
        return []
    kept = [whole[0], *(line for line in whole[1:] if int(line.split(',', 1)[0]) < done)]
    write_text(path, ''.join(kept))
    return next(csv.reader(whole[:1]))


def _widen_csv(path: Path, columns: list[str], names: list[str]) -> list[str]:
    """Give the file a column for each name; returns the columns."""
    rows = []
    if path.is_file():
        with open(path, newline='', encoding='utf-8') as stream:
            rows = list(csv.DictReader(stream))
    columns = [*columns, *(name for name in names if name not in columns)]
    with whole_file(path) as partial, open(partial, 'w', newline='', encoding='utf-8') as stream:
        writer = csv.DictWriter(stream, columns, restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    return columns


def _cut_jsonl(path: Path, done: int) -> list[dict[str, Any]]:
    """Leave the lines of evaluations after at most `done` steps; returns them."""
    if not path.is_file():
        return []
    text = path.read_text(encoding='utf-8').splitlines(keepends=True)
    lines = [json.loads(line) for line in text if line.endswith('\n')]
    kept = [line for line in lines if line['step'] <= done]
    write_text(path, ''.join(map(_as_line, kept)))
    return kept


def _as_line(numbers: Mapping[str, Any]) -> str:
    return json.dumps(finite_or_null(numbers), allow_nan=False) + '\n'


def _open_tensorboard(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info('TensorBoard is not installed (pip install tensorboard): log.csv and evaluations.jsonl are written')
        return None
    return SummaryWriter(str(folder), purge_step=done + 1)
