"""One process of a run that torchrun starts for the tests: it trains, may fail, and writes the weights it ends with.

Usage: distributed_worker.py CONFIG ROOT RUN_DIR FAILING_STEP; in that step (-1: none) the loss of process 1 is nan.
"""

import os
import sys
from pathlib import Path

import torch

from hybrid_seg_ros.training.run_loop import run_training
from hybrid_seg_ros.training.stage import Stage
from hybrid_seg_ros.training.train_config import TrainConfig
from hybrid_seg_ros.training.train_segmenter import evaluate_segmenter, train_losses

config, root, run_dir = TrainConfig.load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
failing_step = int(sys.argv[4])
rank = os.environ['RANK']
models = {}


def losses(model, batch, step, config):
    models[0] = model
    result = train_losses(model, batch, step, config)
    if (rank, step) == ('1', failing_step):
        result['policy'] = result['policy'] * float('nan')
    return result


torch.set_num_threads(1)
stage = Stage(losses, evaluate_segmenter, ('miou', 'pixel_accuracy'), 'miou')
try:
    run_training(config, root, run_dir, stage)
except Exception as error:
    print(f'process {rank} stops: {type(error).__name__}: {error}', file=sys.stderr, flush=True)
    raise
torch.save(models[0].state_dict(), run_dir / f'weights_of_process_{rank}.pt')
