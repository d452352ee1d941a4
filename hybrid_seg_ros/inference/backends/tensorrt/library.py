"""Which TensorRT is installed, `tensorrt` 8.6 or newer or TensorRT for RTX, and what differs between them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

MODULES = {'tensorrt': 'tensorrt', 'tensorrt_rtx': 'tensorrt_rtx', 'tensorrt_rtx_bindings': 'tensorrt_rtx'}
"""Modules that are TensorRT, and the flavour of each; the first that is installed is used."""

OLDEST = (8, 6)
"""The first `tensorrt` that reads and writes uint8 tensors."""


@dataclass(frozen=True)
class LogLine:
    """One line of TensorRT's log: `severity` is INTERNAL_ERROR, ERROR, WARNING or INFO."""

    severity: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether TensorRT calls it one."""
        return self.severity.endswith('ERROR')


@dataclass(frozen=True)
class TensorRt:
    """An imported TensorRT."""

    module: ModuleType
    flavour: str
    version: str
    logger: Any = field(repr=False)

    @property
    def name(self) -> str:
        """Flavour and version: engines of another name do not run."""
        return f'{self.flavour} {self.version}'

    @property
    def strongly_typed(self) -> bool:
        """Whether it computes each layer in the type that the ONNX file has, rather than as its flags say (8.6)."""
        return hasattr(self.module.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED')

    @property
    def network_flags(self) -> int:
        """The bits for create_network."""
        known = self.module.NetworkDefinitionCreationFlag
        wanted = (getattr(known, name, None) for name in ('EXPLICIT_BATCH', 'STRONGLY_TYPED'))
        return sum(1 << int(flag) for flag in wanted if flag is not None)

    @property
    def compute_capabilities(self) -> tuple[int, ...]:
        """The GPUs that it can build for without having one, 89 for 8.9; empty where it builds for its own alone."""
        known = getattr(self.module, 'ComputeCapability', None)
        names = () if known is None else known.__members__
        return tuple(sorted(int(name[2:]) for name in names if name.startswith('SM')))

    @contextmanager
    def collected_log(self) -> Iterator[list[LogLine]]:
        """Collect what TensorRT logs meanwhile instead of passing it on; one caller at a time."""
        with self.logger.collecting:
            lines: list[LogLine] = []
            self.logger.lines = lines
            try:
                yield lines
            finally:
                self.logger.lines = None


@cache
def load_tensorrt() -> TensorRt:
    """Import the TensorRT that is installed. Raises ModuleNotFoundError that says what to install."""
    return find_tensorrt(MODULES)


def find_tensorrt(modules: Mapping[str, str]) -> TensorRt:
    """Import the first of `modules` that is installed, as load_tensorrt does."""
    for name, flavour in modules.items():
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise ModuleNotFoundError(f'{name} is installed, but not whole: {error}') from error
            continue
        except (ImportError, OSError) as error:
            raise ModuleNotFoundError(f'{name} is installed, but cannot be loaded: {error}') from error
        version = str(module.__version__)
        if flavour == 'tensorrt' and tuple(int(part) for part in version.split('.')[:2]) < OLDEST:
            raise ModuleNotFoundError(f'tensorrt {version} is too old; expected {OLDEST[0]}.{OLDEST[1]} or newer')
        return TensorRt(module, flavour, version, _make_logger(module))
    raise ModuleNotFoundError(
        f'no TensorRT is installed, tried {", ".join(modules)}; expected the tensorrt of JetPack or of '
        '`pip install tensorrt`, or on a GeForce or RTX GPU `pip install tensorrt-rtx`'
    )


@cache
def _make_logger(module: ModuleType) -> Any:
    """Return the logger of this process: TensorRT takes the first that it gets, and no other."""
    levels = {'INFO': logging.DEBUG, 'WARNING': logging.WARNING, 'ERROR': logging.ERROR}

    class Logger(module.ILogger):
        """Forwards to `logging`, or collects."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.collecting = threading.Lock()
            self.lines: Any = None

        def log(self, severity: Any, message: str) -> None:
            name, lines = severity.name, self.lines
            if name == 'VERBOSE':
                return
            if lines is not None:
                lines.append(LogLine(name, message))
            else:
                log.log(levels.get(name, logging.ERROR), '%s', message)

    return Logger()
