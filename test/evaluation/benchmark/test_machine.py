"""What a measurement ran on is named, and cores that this process may not use are not counted."""

import os
import subprocess
import sys
from pathlib import Path

from hybrid_seg_ros.evaluation.benchmark.machine import cpu_name, describe_cpu, usable_cores

ROOT = Path(__file__).parents[3]


def test_the_processor_is_named_and_how_threads_wait(monkeypatch):
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    monkeypatch.delenv('GOMP_SPINCOUNT', raising=False)
    assert cpu_name().strip() == cpu_name() != ''
    assert describe_cpu() == f'{cpu_name()}, {len(os.sched_getaffinity(0))} cores'
    assert describe_cpu(threads=3) == f'{describe_cpu()}, threads: 3, OMP_WAIT_POLICY: ACTIVE, GOMP_SPINCOUNT: not set'


def test_cores_that_are_taken_away_do_not_count():
    first = min(os.sched_getaffinity(0))
    code = f'import os; os.sched_setaffinity(0, [{first}])\n' \
           'from hybrid_seg_ros.evaluation.benchmark.machine import usable_cores; print(usable_cores())'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == '1', done.stderr
    assert usable_cores() == len(os.sched_getaffinity(0))
