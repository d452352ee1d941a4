"""What the person who started a run gives and sees: options, progress, Ctrl-C, messages and exit status."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Optional

import torch
from tqdm import tqdm

from hybrid_seg_ros.data.registry import DATASETS
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.training.devices import ProcessFailedError
from hybrid_seg_ros.training.train_config import TrainConfig

log = logging.getLogger(__name__)

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTICE = b'\nfinishing the running step and saving; once more to stop at once\n'

LINE_STEPS, LINE_SECONDS = 100, 30.0
"""Without a terminal there is a line after so many steps or seconds, whichever comes first."""

TrainFunction = Callable[[TrainConfig, Path, Path, Optional[int], str, Optional[int]], Optional[ModelSpec]]


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a training command."""
    parser.add_argument('--config', type=Path, required=True, help='training configuration (YAML)')
    parser.add_argument('--set', dest='changes', action='append', default=[], metavar='KEY=VALUE',
                        help='change a value of the configuration, such as model.policy=half_size; may be repeated')
    parser.add_argument('--root', type=Path, required=True, help=f'folder of the dataset ({", ".join(DATASETS)})')
    parser.add_argument('--run-dir', type=Path, required=True, help='folder for the run; an unfinished one goes on')
    parser.add_argument('--until', type=int, help='stop after this many steps of the run, ready to be resumed')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N; cuda with torchrun: a GPU per process')
    parser.add_argument('--threads', type=int, help='CPU threads of PyTorch')
    parser.add_argument('--workers', type=int, help='threads that prepare batches (one on the CPU, more with a GPU)')


def run_command(args: argparse.Namespace, train: TrainFunction) -> int:
    """Run a training command; returns its exit status."""
    if args.threads:
        torch.set_num_threads(args.threads)
    is_first = os.environ.get('RANK', '0') == '0'
    if not is_first:
        logging.getLogger().setLevel(logging.WARNING)
    try:
        config = TrainConfig.load(args.config, args.changes)
        spec = train(config, args.root, args.run_dir, args.until, args.device, args.workers)
    except KeyboardInterrupt as interrupt:
        if is_first:
            message = str(interrupt) or 'stopped at once; the same command goes on from the last saved state'
            print(f'hybrid_seg {args.command}: {message}', file=sys.stderr)
        return EXIT_INTERRUPTED
    except (FloatingPointError, ProcessFailedError) as error:
        print(f'hybrid_seg {args.command}: {error}', file=sys.stderr)
        return EXIT_ERROR
    if not is_first:
        return 0
    if spec is None:
        print(f'stopped after step {args.until}; the same command without --until goes on')
    else:
        print(f'model written to {args.run_dir / "model.yaml"}, the best one to {args.run_dir / "best.yaml"}')
    return 0


class Interruption:
    """Ctrl-C and SIGTERM: the running step is finished and saved.

    While entered, the first signal sets `requested`, a later one raises KeyboardInterrupt.

    `same_request_s`: signals that come this soon after the first mean the same. torchrun passes on the Ctrl-C that its
    processes have had from the terminal already. Outside the main thread nothing is installed.
    """

    def __init__(self, same_request_s: float = 0.0, notify: bool = True) -> None:
        self.requested = False
        self._same_request_s, self._notify = same_request_s, notify
        self._first_s = 0.0
        self._nothing_to_finish = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> 'Interruption':
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Run a part that is not worth finishing, such as an evaluation: the first signal raises already."""
        if self.requested:
            raise KeyboardInterrupt
        self._nothing_to_finish = True
        try:
            yield
        finally:
            self._nothing_to_finish = False

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        now = time.monotonic()
        if self._nothing_to_finish or (self.requested and now - self._first_s >= self._same_request_s):
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._first_s = True, now
            if self._notify:
                os.write(2, _NOTICE)  # print is not safe in a signal handler


class Progress:
    """How far a run is: a bar on a terminal, else a line now and then. `done` of `total` steps were done before."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._first = total, done
        self._started_s = self._shown_s = time.monotonic()
        self._shown_step = done
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, desc='train', unit='step', dynamic_ncols=True)

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Show that `done` steps are done, with the loss of the last."""
        shown = {name: value for name, value in values.items() if name != 'learning_rate'}
        if self._bar is not None:
            self._bar.set_postfix({name: f'{value:.3f}' for name, value in shown.items()}, refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        is_first = done == self._first + 1
        if is_first or done == self._total or done - self._shown_step >= LINE_STEPS or (
            now - self._shown_s >= LINE_SECONDS
        ):
            self._shown_step, self._shown_s = done, now
            per_step = (now - self._started_s) / (done - self._first)
            losses = ', '.join(f'{name} {value:.4f}' for name, value in shown.items())
            left = tqdm.format_interval((self._total - done) * per_step)
            log.info('step %d of %d: %s; %.2f s a step, %s left', done, self._total, losses, per_step, left)

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._bar is not None:
            self._bar.close()
