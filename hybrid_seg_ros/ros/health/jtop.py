"""What jetson-stats tells of a Jetson: power, power mode, fans. Its service, jtop, runs apart and may not answer."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Mapping
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
    gpu = next(iter(_mapping(client, 'gpu').values()), {})
    numbers = {
        'gpu_load_percent': _at(gpu, 'status', 'load'),
        'gpu_frequency_mhz': _scaled(_at(gpu, 'freq', 'cur'), 1e-3),
        'gpu_memory_mb': _scaled(_at(_mapping(client, 'memory'), 'RAM', 'shared'), 1.024e-3),
        'power_mw': _at(_mapping(client, 'power'), 'tot', 'power'),
    }
    for name, fan in _mapping(client, 'fan').items():
        numbers[f'fan_{name}_percent'] = _at(fan, 'speed', 0)
    values: dict[str, Union[float, str]] = {
        name: float(value) for name, value in numbers.items() if _scaled(value, 1.0) is not None
    }
    power_mode = getattr(_attribute(client, 'nvpmodel'), 'name', None)
    if power_mode:
        values['power_mode'] = str(power_mode)
    return values


def _attribute(client: Any, name: str) -> Any:
    """Return the attribute, None if it is missing: boards and versions differ in what there is."""
    try:
        return getattr(client, name)
    except (AttributeError, KeyError):
        return None


def _mapping(client: Any, name: str) -> Mapping[str, Any]:
    value = _attribute(client, name)
    return value if hasattr(value, 'items') else {}  # jtop's own classes are like dicts without being Mappings


def _at(value: Any, *keys: Any) -> Any:
    for key in keys:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return None
    return value


def _scaled(value: Any, factor: float) -> Optional[float]:
    return value * factor if isinstance(value, (int, float)) and not isinstance(value, bool) else None
