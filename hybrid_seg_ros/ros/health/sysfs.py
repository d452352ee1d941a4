"""What Linux tells of the machine in /proc and /sys. What cannot be read is left out, never guessed.

Every function takes the folder that stands for `/`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Optional

OFFLINE_BELOW_C = -100.0
"""Tegra's sensors say -256 C while what they measure is switched off."""

_GPU_NAMES = ('gpu', 'ga10b', 'gv11b', 'gp10b')
"""The GPU in the device tree: `17000000.gpu` on JetPack 6, `17000000.ga10b` on JetPack 5, older ones on Xavier, TX2."""

_GPU_LOAD_FILES = ('sys/devices/platform/gpu.0/load', 'sys/devices/gpu.0/load')
"""Links to the load on Jetsons, for kernels whose devfreq folder does not lead to it."""


def process_memory_mb(root: Path) -> Optional[float]:
    """Return the resident memory of this process."""
    fields = _text(root / 'proc/self/statm').split()
    return int(fields[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6 if len(fields) > 1 else None


def cpu_ticks(root: Path) -> Optional[tuple[int, int]]:
    """Return the ticks since boot in which CPUs were busy, and all of them, summed over the CPUs (proc_stat(5))."""
    name, *fields = _text(root / 'proc/stat').partition('\n')[0].split() or ['']
    if name != 'cpu' or len(fields) < 4:
        return None
    ticks = [int(field) for field in fields[:8]]  # what guests used is part of the user's
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)  # the fourth is idle, the fifth waiting for a disk


def read_load(root: Path) -> dict[str, float]:
    """Return the load average over a minute and the memory in use, that which the kernel can free left out, in MB."""
    values = {}
    load = _number(_text(root / 'proc/loadavg').partition(' ')[0])
    if load is not None:
        values['load_average_1min'] = load
    lines = dict(re.findall(r'^(\w+):\s+(\d+) kB$', _text(root / 'proc/meminfo'), re.MULTILINE))
    if {'MemTotal', 'MemAvailable'} <= set(lines):
        total, available = int(lines['MemTotal']), int(lines['MemAvailable'])
        values['ram_used_mb'], values['ram_total_mb'] = (total - available) * 1.024e-3, total * 1.024e-3
    return values


def read_temperatures(root: Path) -> dict[str, float]:
    """Return the thermal zones in degrees Celsius as temperature_NAME_c; Jetson's `cpu-thermal` is NAME `cpu`."""
    values: dict[str, float] = {}
    for zone in sorted((root / 'sys/class/thermal').glob('thermal_zone*'), key=lambda path: (len(path.name), path)):
        name = re.sub(r'[-_]therm(al)?$', '', _text(zone / 'type'))
        milli_c = _number(_text(zone / 'temp'))
        # Jetsons up to Xavier have a zone `PMIC-Die` that says 100 C at all times
        if not name or milli_c is None or milli_c / 1e3 < OFFLINE_BELOW_C or name.upper().startswith('PMIC'):
            continue
        key = temperature_key(name)
        values[key if key not in values else temperature_key(f'{name}_{zone.name[12:]}')] = milli_c / 1e3
    return values


def temperature_key(name: str) -> str:
    """Return the name of the value that holds the temperature called `name`."""
    return f'temperature_{re.sub(r"[^0-9A-Za-z]+", "_", name)}_c'


def read_gpu(root: Path) -> dict[str, float]:
    """Return load and frequency of a Jetson's GPU, from sysfs: load in tenths of a percent, frequency in Hz."""
    values = {}
    load_files = [root / name for name in _GPU_LOAD_FILES]
    for folder in sorted((root / 'sys/class/devfreq').glob('*')):
        names = {folder.name.partition('.')[2], _text(folder / 'device/of_node/name').rstrip('\0')}
        if names.isdisjoint(_GPU_NAMES):
            continue
        load_files.insert(0, folder / 'device/load')
        frequency_hz = _number(_text(folder / 'cur_freq'))
        if frequency_hz is not None:
            values['gpu_frequency_mhz'] = frequency_hz / 1e6
        break
    loads = [load for load in (_number(_text(path)) for path in load_files) if load is not None]
    if loads:
        values['gpu_load_percent'] = loads[0] / 10
    return values


def _text(path: Path) -> str:
    """Return what the file holds, '' if it cannot be read.

    Not `read_text`: a sensor that is switched off answers EAGAIN, and Python's file objects make a TypeError of that.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.read(descriptor, 8192).decode('utf-8', 'replace').strip()
        finally:
            os.close(descriptor)
    except OSError:
        return ''


def _number(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None
