"""One process that torchrun starts for the tests; it trains twice, which is quicker than two starts of PyTorch.

Usage: distributed_worker.py FAILING_STEP PORT, and the arguments of `hybrid_seg train`. The first time, the loss of
process 1 is nan in that step; the second time, the processes meet at PORT, and the run goes on.
"""

import os
import sys
from pathlib import Path

import torch

from hybrid_seg_ros import cli
from hybrid_seg_ros.training import train_segmenter

failing_step, port, *argv = sys.argv[1:]
run_dir, rank = Path(argv[argv.index('--run-dir') + 1]), os.environ['RANK']
exact, models = train_segmenter.train_losses, {}


def losses(model, batch, step, *others, **more):
    models['last'] = model
    result = exact(model, batch, step, *others, **more)
    if (rank, step, models.get('attempt')) == ('1', int(failing_step), 'first'):
        result['policy'] = result['policy'] * float('nan')
    return result


train_segmenter.train_losses = losses
for attempt in ('first', 'second'):
    models['attempt'] = attempt
    status = cli.main(argv)
    print(f'process {rank}, {attempt} attempt: status {status}', file=sys.stderr, flush=True)
    torch.save(models['last'].state_dict(), run_dir / f'weights_of_process_{rank}.pt')
    if rank == '0':
        (run_dir / f'{attempt}_state.pt').write_bytes((run_dir / 'state.pt').read_bytes())
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE='False', MASTER_PORT=port)
