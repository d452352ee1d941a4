"""LogForwarder: what the core says through `logging` goes to ROS: console, /rosout and log files."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

_CORE = 'hybrid_seg_ros'


class LogForwarder(logging.Handler):
    """Handler of this package's loggers from `attach` to `detach`; `last` is the last thing said."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger
        self.last = ''
        self.setFormatter(logging.Formatter('%(message)s'))

    def attach(self) -> None:
        """Forward from now on."""
        logging.getLogger(_CORE).addHandler(self)
        logging.getLogger(_CORE).setLevel(logging.INFO)

    def detach(self) -> None:
        """Forward no more."""
        logging.getLogger(_CORE).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record; a line per level, because rclpy refuses another severity from the same line."""
        text = self.last = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
