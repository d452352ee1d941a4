"""state.pt: all that a run needs to go on as if it had never stopped. Written whole or not at all."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybrid_seg_ros.files import whole_file
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.train_config import TrainConfigError
from hybrid_seg_ros.training.weight_update import WeightUpdate


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
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
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
