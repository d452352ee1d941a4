"""What `hybrid_seg train` and `hybrid_seg train-policy` have in common: options, messages, exit status."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Optional

import torch

from hybrid_seg_ros.data.registry import DATASETS
from hybrid_seg_ros.model_spec import ModelSpec
from hybrid_seg_ros.training.distributed import ProcessFailedError
from hybrid_seg_ros.training.train_config import TrainConfig

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130

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
