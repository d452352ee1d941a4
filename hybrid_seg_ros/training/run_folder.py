"""What a run writes, and goes on from: state.pt, log.csv per step, evaluations.jsonl; for TensorBoard, pictures too.

A kill at any moment loses nothing that was written, and leaves nothing twice.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from hybrid_seg_ros.files import finite_or_null, whole_file, write_text
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.train_config import TrainConfigError
from hybrid_seg_ros.training.weight_update import WeightUpdate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunState:
    """What training changes: the weights, their moving average, the optimiser's moments and the loss scale.

    Random numbers have no state: they follow from seed and step. `batches_per_step` (of all processes) must stay.
    """

    model: HybridSegmenter
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    update: WeightUpdate
    batches_per_step: int

    def save(self, path: Path, step: int) -> None:
        """Write the state after `step` steps; a kill at any moment leaves the old file or the new one."""
        content = {
            'step': step,
            'batches_per_step': self.batches_per_step,
            'model': self.model.state_dict(),
            'average': self.average,
            'optimizer': self.optimizer.state_dict(),
            'update': self.update.state_dict(),
        }
        with whole_file(path) as partial, open(partial, 'wb') as stream:
            try:
                torch.save(content, stream)
            except RuntimeError as error:  # so it says that the disk is full
                raise OSError(f'{path}: not written, is the disk full? ({error})') from error
            stream.flush()
            os.fsync(stream.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name too must outlive a loss of power
        finally:
            os.close(folder)

    def restore(self, path: Path) -> int:
        """Go on from a file; returns how many steps are done, 0 without a file.

        Raises TrainConfigError if a step would see another number of batches, or if the file is damaged.
        """
        if not path.is_file():
            return 0
        try:
            content: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise TrainConfigError(f'{path}: damaged, or not of this program: {error}') from error
        expected = content.get('batches_per_step')
        if expected != self.batches_per_step:
            raise TrainConfigError(
                f'{path}: expected {expected} batches a step as before (processes x accumulate), '
                f'got {self.batches_per_step}'
            )
        self.model.load_state_dict(content['model'])
        for name, value in content['average'].items():
            self.average[name].copy_(value)
        self.optimizer.load_state_dict(content['optimizer'])
        self.update.load_state_dict(content['update'])
        return content['step']


class RunLog:
    """The files of one run; what a killed run wrote after step `done` is taken off, for it is done again."""

    def __init__(self, run_dir: Path, done: int) -> None:
        self._csv, self._jsonl = run_dir / 'log.csv', run_dir / 'evaluations.jsonl'
        rows = [row for row in _read_csv(self._csv) if int(row['step']) < done]
        self._columns = list(rows[0]) if rows else []
        _write_csv(self._csv, self._columns, rows)
        self._evaluations = _cut_jsonl(self._jsonl, done)
        self._board = _open_tensorboard(run_dir / 'tensorboard', done)

    def step(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Write the losses of a step (counted from 0) and how long it took."""
        row = {'step': step, **values, 'seconds': round(seconds, 3)}
        if not row.keys() <= set(self._columns):
            self._columns += [name for name in row if name not in self._columns]
            _write_csv(self._csv, self._columns, _read_csv(self._csv))
        with open(self._csv, 'a', newline='', encoding='utf-8') as stream:
            csv.DictWriter(stream, self._columns, restval='', lineterminator='\n').writerow(row)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f'train/{name}', value, step + 1)  # steps done, as evaluations are

    def evaluation(
        self, done: int, numbers: Mapping[str, Any], pictures: Sequence[tuple[str, np.ndarray]] = ()
    ) -> None:
        """Write the evaluation after `done` steps; `pictures`, named (H, W, 3) uint8 RGB, are for TensorBoard."""
        line = {'step': done, **numbers}
        log.info('%s', line)
        with open(self._jsonl, 'a', encoding='utf-8') as stream:
            stream.write(_as_line(line))
            stream.flush()
            os.fsync(stream.fileno())
        self._evaluations.append(line)
        if self._board is not None:
            for name, value in numbers.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f'evaluation/{name}', value, done)
            for name, picture in pictures:
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


def _read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows, if there is a file; a kill can leave half of the last one, which is left out."""
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True) if path.is_file() else []
    return list(csv.DictReader(line for line in lines if line.endswith('\n')))


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows with these columns, and no file without any."""
    if not columns:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as partial, open(partial, 'w', newline='', encoding='utf-8') as stream:
        writer = csv.DictWriter(stream, columns, restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


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
