"""What another process takes: memory, threads, open files, processor time, as Linux's /proc says; and all together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_KIB_PER_MIB = 1024
_TICKS_HZ = os.sysconf('SC_CLK_TCK')


@dataclass(frozen=True)
class ProcessFigures:
    """One look at a process. Resident memory in MiB: all, its own (`anonymous`), and of shared memory (DDS's).

    `cpu_s` is the processor time that all its threads took so far, in seconds, in steps of 10 ms.
    """

    resident_mib: float
    anonymous_mib: float
    shared_mib: float
    threads: int
    open_files: int
    cpu_s: float


def process_figures(pid: int) -> ProcessFigures:
    """Look at a process. Raises OSError if it is gone (ended, even if nobody has asked for its status yet)."""
    folder = Path('/proc') / str(pid)
    lines = (folder / 'status').read_text(encoding='utf-8', errors='replace').splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(':') for line in lines)}
    if 'VmRSS' not in fields:
        raise ProcessLookupError(f'process {pid} has ended')
    times = (folder / 'stat').read_text(encoding='utf-8', errors='replace').rpartition(')')[2].split()
    return ProcessFigures(
        *(int(fields[name][0]) / _KIB_PER_MIB for name in ('VmRSS', 'RssAnon', 'RssShmem')),
        threads=int(fields['Threads'][0]),
        open_files=len(os.listdir(folder / 'fd')),
        cpu_s=(int(times[11]) + int(times[12])) / _TICKS_HZ,  # utime and stime
    )


def machine_cpu_s() -> float:
    """Return the processor time that all processes of the machine took so far, in seconds, of all cores together."""
    user, nice, system, _idle, _waiting, *interrupts = map(int, Path('/proc/stat').read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / _TICKS_HZ
