"""Peak memory of one row: a process of its own loads the model, segments a few frames, and says what that took.

Nothing here imports PyTorch, so that a backend that does without it is measured without it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from hybrid_seg_ros.evaluation.benchmark.baselines import open_baseline
from hybrid_seg_ros.evaluation.benchmark.plan import BASELINES, PLAIN, TORCH_COMPILE
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.model_spec import Keep, ModelSpec, Variant

log = logging.getLogger(__name__)

FRAMES = 3
TIMEOUT_S = 600.0
MIB = 1 << 20


@dataclass(frozen=True)
class MemoryJob:
    """What the process shall run: plain values, as they go to it as JSON.

    `image` is a file of np.save, `graph` one that `export_dense` wrote.
    """

    model: str
    backend: str
    device: str
    dtype: str
    variant: str
    keep: tuple[Keep, ...]
    image: str
    inference: Optional[str] = None
    cache_dir: Optional[str] = None
    graph: Optional[str] = None


@dataclass(frozen=True)
class PeakMemory:
    """Peak resident memory of a process, and of what PyTorch held on its GPU; in MiB, None where it is not known."""

    peak_memory_mb: Optional[float] = None
    peak_device_memory_mb: Optional[float] = None


def measure_peak_memory(job: MemoryJob) -> PeakMemory:
    """Run the job in a new process; logs a warning, and returns nothing known, if that fails."""
    command = [sys.executable, '-m', __name__, json.dumps(dataclasses.asdict(job))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        return PeakMemory(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f'exit status {error.returncode}'])[-1]
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        reason = str(error)
    log.warning('no peak memory of %s %s, %s %s: %s',
                Path(job.model).stem, job.variant, job.backend, job.dtype, reason)  # fmt: skip
    return PeakMemory()


def run_job(job: MemoryJob) -> PeakMemory:
    """Load and run in this process, and return the peak of all that it ever did."""
    image = np.load(job.image)
    pipeline = _open(job)
    for _ in range(FRAMES):
        pipeline(image)
    device_mb = None
    if job.backend in ('pytorch', PLAIN, TORCH_COMPILE) and job.device.startswith('cuda'):
        import torch

        device_mb = torch.cuda.max_memory_reserved(job.device) / MIB
    return PeakMemory(resident_peak_mb(), device_mb)


def resident_peak_mb() -> Optional[float]:
    """Return the peak resident memory of this process, None where Linux's /proc is not there.

    Not getrusage: its peak counts the process that this one was forked from.
    """
    try:
        lines = Path('/proc/self/status').read_text(encoding='ascii').splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith('VmHWM:')), None)


def _open(job: MemoryJob) -> Any:
    if job.backend not in BASELINES:
        return load_pipeline(
            job.model, job.backend, job.device, job.dtype, job.variant, job.keep, inference=job.inference,
            cache_dir=job.cache_dir,
        )  # fmt: skip
    spec = ModelSpec.load(job.model)
    spec = dataclasses.replace(spec, inference=job.inference or spec.inference)
    budget = dataclasses.replace(spec.budget, keep=job.keep)
    graph = None if job.graph is None else Path(job.graph)
    return open_baseline(job.backend, spec, Variant.parse(job.variant), budget, job.device, job.dtype, graph)


def main(argv: Sequence[str]) -> None:
    """Run the job given as JSON, and print what it took as JSON."""
    fields = json.loads(argv[0])
    job = MemoryJob(**{**fields, 'keep': tuple(fields['keep'])})
    print(json.dumps(dataclasses.asdict(run_job(job))))


if __name__ == '__main__':
    main(sys.argv[1:])
