"""MachineState: what the machine and the node's process are doing, for diagnostics."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional, Union

from diagnostic_msgs.msg import DiagnosticStatus

from hybrid_seg_ros.ros.health.jtop import JtopReader, jtop_client
from hybrid_seg_ros.ros.health.sysfs import cpu_ticks, process_memory_mb, read_gpu, read_load, read_temperatures

Values = dict[str, Union[float, str]]

HOT_C = 90.0
"""From here on verdicts warn. Orin slows down at 99 C and switches off at 104.5 C (tegra234-p3701-0000.dtsi)."""

LEAST_FREE_RAM = 0.1
"""Verdicts warn when less of the memory than this is available."""

_STALE_S = 10.0
_PERIOD_S = 1.0
_CLOSE_S = 1.0


class MachineState:
    """Reads Linux and, where jetson-stats is installed, jtop. What could take long is read in threads of its own.

    `root` is the folder that stands for `/`; `make_jtop` makes a jtop client, as `jtop_client` returns it.
    """

    def __init__(self, root: Path = Path('/'), make_jtop: Optional[Callable[[], Any]] = None) -> None:
        self._root = root
        self._pollers = [_Poller('sensors', lambda: {**read_temperatures(root), **read_gpu(root)}, {})]
        make_jtop = make_jtop or jtop_client()
        if make_jtop is not None:
            jtop = JtopReader(make_jtop)
            self._pollers.append(_Poller('jtop', jtop.read, {'jtop': 'no answer yet'}, jtop.close))
        self._last_s = (time.monotonic(), time.process_time())
        self._last_ticks = cpu_ticks(root)

    def values(self) -> Values:
        """Return what is known now; takes well below a millisecond.

        CPU loads are those since the last call, that of the process in per cent of one core, that of the machine in
        per cent of all. Without a reading there is no value.
        """
        values: Values = {}
        now_s, process_s = time.monotonic(), time.process_time()
        elapsed_s = now_s - self._last_s[0]
        if elapsed_s > 0:
            values['process_cpu_percent'] = 100 * (process_s - self._last_s[1]) / elapsed_s
        self._last_s = (now_s, process_s)
        memory_mb = process_memory_mb(self._root)
        if memory_mb is not None:
            values['process_memory_mb'] = memory_mb
        ticks = cpu_ticks(self._root)
        if ticks and self._last_ticks and ticks[1] > self._last_ticks[1]:
            busy, total = (now - last for now, last in zip(ticks, self._last_ticks))
            values['cpu_percent'] = 100 * busy / total
        self._last_ticks = ticks
        values.update(read_load(self._root))
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
