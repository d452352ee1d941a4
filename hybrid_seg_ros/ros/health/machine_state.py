"""MachineState: what the machine and the node's process are doing, for diagnostics; what cannot be read is left out.

Loads and memory are psutil's. Temperatures and a Jetson's GPU are read from /sys: psutil leaves thermal zones aside
where there are other sensors, and knows no GPU.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional, Union

import psutil
from diagnostic_msgs.msg import DiagnosticStatus

from hybrid_seg_ros.ros.health.jtop import JtopReader, jtop_client

Values = dict[str, Union[float, str]]

HOT_C = 90.0
"""From here on verdicts warn. Orin slows down at 99 C and switches off at 104.5 C (tegra234-p3701-0000.dtsi)."""

LEAST_FREE_RAM = 0.1
"""Verdicts warn when less of the memory than this is available."""

_STALE_S = 10.0
_PERIOD_S = 1.0
_CLOSE_S = 1.0

_OFFLINE_BELOW_C = -100.0
"""Tegra's sensors say -256 C while what they measure is switched off."""

_GPU_NAMES = ('gpu', 'ga10b', 'gv11b', 'gp10b')
"""The GPU in the device tree: `17000000.gpu` on JetPack 6, `17000000.ga10b` on JetPack 5, older ones on Xavier, TX2."""

_GPU_LOAD_FILES = ('sys/devices/platform/gpu.0/load', 'sys/devices/gpu.0/load')
"""Links to the load on Jetsons, for kernels whose devfreq folder does not lead to it."""


class MachineState:
    """Asks psutil, reads /sys and, where jetson-stats is installed, jtop. What could take long has its own thread.

    `root` is the folder that stands for `/`; `make_jtop` makes a jtop client, as `jtop_client` returns it.
    """

    def __init__(self, root: Path = Path('/'), make_jtop: Optional[Callable[[], Any]] = None) -> None:
        self._pollers = [_Poller('sensors', lambda: {**read_temperatures(root), **read_gpu(root)}, {})]
        make_jtop = make_jtop or jtop_client()
        if make_jtop is not None:
            jtop = JtopReader(make_jtop)
            self._pollers.append(_Poller('jtop', jtop.read, {'jtop': 'no answer yet'}, jtop.close))
        self._process = psutil.Process()
        self._process.cpu_percent()  # from here on
        psutil.cpu_percent()

    def values(self) -> Values:
        """Return what is known now; takes well below a millisecond.

        CPU loads are those since the last call, that of the process in per cent of one core, that of the machine in
        per cent of all.
        """
        memory = psutil.virtual_memory()
        values: Values = {
            'process_cpu_percent': self._process.cpu_percent(),
            'process_memory_mb': self._process.memory_info().rss / 1e6,
            'cpu_percent': psutil.cpu_percent(),
            'load_average_1min': os.getloadavg()[0],
            'ram_used_mb': (memory.total - memory.available) / 1e6,  # without what the kernel can free
            'ram_total_mb': memory.total / 1e6,
        }
        for poller in self._pollers:
            values.update(poller.newest)
        return values

    def close(self) -> None:
        """End the threads. One that waits for jtop ends when jtop answers, or with the process."""
        for poller in self._pollers:
            poller.close()


def machine_verdict(values: Mapping[str, Union[float, str]]) -> tuple[bytes, str]:
    """Return level and message on the machine: WARN if it is hot or has little memory left."""
    degrees_c = {
        name[len('temperature_') : -len('_c')]: value
        for name, value in values.items()
        if name.startswith('temperature_') and isinstance(value, float)
    }
    used_mb, total_mb = values.get('ram_used_mb'), values.get('ram_total_mb')
    warnings = [f'{name} has {value:.0f} C' for name, value in degrees_c.items() if value >= HOT_C]
    if total_mb and total_mb - used_mb < LEAST_FREE_RAM * total_mb:
        warnings.append(f'{total_mb - used_mb:.0f} of {total_mb:.0f} MB of memory left')
    if warnings:
        return DiagnosticStatus.WARN, ', '.join(warnings)
    facts = [f'process {values["process_cpu_percent"]:.0f} % of a core'] if 'process_cpu_percent' in values else []
    if total_mb:
        facts.append(f'{used_mb:.0f} of {total_mb:.0f} MB of memory used')
    if degrees_c:
        facts.append(f'at most {max(degrees_c.values()):.0f} C')
    return DiagnosticStatus.OK, ', '.join(facts)


def read_temperatures(root: Path) -> dict[str, float]:
    """Return the thermal zones in degrees Celsius as temperature_NAME_c; Jetson's `cpu-thermal` is NAME `cpu`."""
    values: dict[str, float] = {}
    for zone in sorted((root / 'sys/class/thermal').glob('thermal_zone*'), key=lambda path: (len(path.name), path)):
        name = re.sub(r'[-_]therm(al)?$', '', _text(zone / 'type'))
        milli_c = _number(_text(zone / 'temp'))
        # Jetsons up to Xavier have a zone `PMIC-Die` that says 100 C at all times
        if not name or milli_c is None or milli_c / 1e3 < _OFFLINE_BELOW_C or name.upper().startswith('PMIC'):
            continue
        key = _temperature_key(name)
        values[key if key not in values else _temperature_key(f'{name}_{zone.name[12:]}')] = milli_c / 1e3
    return values


def _temperature_key(name: str) -> str:
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


class _Poller:
    """Calls `read` every second in a thread."""

    def __init__(
        self, name: str, read: Callable[[], Values], first: Values, finish: Callable[[], None] = lambda: None
    ) -> None:
        self._answer, self._answered_s = first, math.inf
        self._read, self._finish = read, finish
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f'machine_state_{name}', daemon=True)
        self._thread.start()

    @property
    def newest(self) -> Values:
        """The last answer, `first` until there is one; nothing if it is old: what hangs is not shown as the present."""
        return self._answer if time.monotonic() < self._answered_s + _STALE_S else {}

    def close(self) -> None:
        """End the thread; one that is stuck in `read` is left behind."""
        self._stop.set()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while True:
            self._answer, self._answered_s = self._read(), time.monotonic()
            if self._stop.wait(_PERIOD_S):
                break
        self._finish()
