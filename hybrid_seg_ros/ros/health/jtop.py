"""What jetson-stats tells of a Jetson: power, power mode, fans. Its service, jtop, runs apart and may not answer."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any, Optional, Union

_FIRST_RETRY_S, _LAST_RETRY_S = 10.0, 600.0
"""Each attempt makes jtop run a few programs, so they become rare."""


def jtop_client() -> Optional[Callable[[], Any]]:
    """Return what makes a client of jtop's service, None where jetson-stats is not installed."""
    if importlib.util.find_spec('jtop') is None:
        return None
    return lambda: importlib.import_module('jtop').jtop(interval=1.0)


class JtopReader:
    """Asks jtop's service, and again after a while if it does not answer. All calls may take seconds."""

    def __init__(self, make_client: Callable[[], Any]) -> None:
        self._make_client = make_client
        self._client: Any = None
        self._problem = ''
        self._retry_at_s, self._retry_s = 0.0, _FIRST_RETRY_S

    def read(self) -> dict[str, Union[float, str]]:
        """Return what the service says now; `jtop` is 'ok' or why it does not answer. Never raises."""
        try:
            if self._client is None:
                if time.monotonic() < self._retry_at_s:
                    return {'jtop': self._problem}
                self._client = self._make_client()
                self._client.start()
            if not self._client.ok(spin=True):
                raise ConnectionError('it has stopped')
            values = {'jtop': 'ok', **parse_jtop(self._client)}
        except Exception as error:  # of jtop's own kinds, of sockets, of pickles, of versions that do not fit
            self.close()
            self._problem = f'no answer: {" ".join(str(error).split()) or type(error).__name__}'
            self._retry_at_s = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)
            return {'jtop': self._problem}
        self._retry_s = _FIRST_RETRY_S
        return values

    def close(self) -> None:
        """Leave the service, if it was reached."""
        client, self._client = self._client, None
        try:
            if client is not None:
                client.close()
        except Exception:
            pass  # it is being given up


def parse_jtop(client: Any) -> dict[str, Union[float, str]]:
    """Return what the attributes of a jtop object say (jetson-stats 4 and later), as far as they are there.

    Frequencies come in kHz, memory in kB, power in mW, fans in per cent. Its temperatures are those of /sys.
    """
    gpus, fans = ([name for name, _ in _items(client, what)] for what in ('gpu', 'fan'))
    numbers = {
        'gpu_memory_mb': (1.024e-3, 'memory', 'RAM', 'shared'),
        'power_mw': (1.0, 'power', 'tot', 'power'),
        **{f'fan_{name}_percent': (1.0, 'fan', name, 'speed', 0) for name in fans},
    }
    for name in gpus[:1]:
        numbers['gpu_load_percent'] = (1.0, 'gpu', name, 'status', 'load')
        numbers['gpu_frequency_mhz'] = (1e-3, 'gpu', name, 'freq', 'cur')
    values: dict[str, Union[float, str]] = {}
    for key, (factor, *path) in numbers.items():
        value = _at(client, *path)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            values[key] = float(value * factor)
    power_mode = getattr(_at(client, 'nvpmodel'), 'name', None)
    if power_mode:
        values['power_mode'] = str(power_mode)
    return values


def _items(client: Any, attribute: str) -> list[tuple[str, Any]]:
    value = _at(client, attribute)
    return list(value.items()) if hasattr(value, 'items') else []  # jtop's own classes are like dicts


def _at(client: Any, attribute: str, *keys: Any) -> Any:
    """Return what lies at the end of the keys; None if it is missing: boards and versions differ in what there is."""
    try:
        value = getattr(client, attribute)
        for key in keys:
            value = value[key]
    except (AttributeError, LookupError, TypeError):
        return None
    return value
