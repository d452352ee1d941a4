"""Alarms: which diagnostics are worth a line in the log, too."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostic_msgs.msg import DiagnosticStatus

_AGAIN_S = 60.0
_SOONEST_S = 5.0
_TOLD_ELSEWHERE = ('bad frame', 'segmentation failed')
"""Beginnings of messages that are logged when they happen."""


class Alarms:
    """Picks what has become worse, and once a minute what stays bad; a status that comes and goes is not told twice."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[bytes, float]] = {}

    def news(self, statuses: Sequence[DiagnosticStatus], now_s: float) -> list[DiagnosticStatus]:
        """Return the statuses to log; `now_s` is that of a monotonic clock."""
        return [status for status in statuses if self._is_news(status, now_s)]

    def _is_news(self, status: DiagnosticStatus, now_s: float) -> bool:
        level, at_s = self._told.get(status.name, (DiagnosticStatus.OK, -_AGAIN_S))
        if status.level == DiagnosticStatus.OK:
            self._told[status.name] = (DiagnosticStatus.OK, at_s)
            return False
        if status.message.startswith(_TOLD_ELSEWHERE) or ' failed: ' in status.message:
            return False
        if now_s - at_s < (_SOONEST_S if status.level > level else _AGAIN_S):
            return False
        self._told[status.name] = (status.level, now_s)
        return True
